"""The batch function: messages of a queue, files in the inbox and events of a bus are answered as requests are."""
