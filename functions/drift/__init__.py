"""The drift function: each night, whether what models are sent still looks like what they were trained on."""
