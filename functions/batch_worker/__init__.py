"""The batch function: answers messages of a queue, files in the inbox and events of a bus."""
