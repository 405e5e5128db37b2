"""The batch API: files, uploads and batches in OpenAI's form; the batch worker answers the batches."""
