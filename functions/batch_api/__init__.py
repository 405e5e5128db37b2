"""The batches function: files, uploads and batches in OpenAI's shapes; the batch function answers what it orders."""
