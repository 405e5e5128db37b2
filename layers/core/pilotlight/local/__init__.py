"""The local gateway: the functions of template.yaml over HTTP, in environments as on Lambda, without Docker or AWS."""
