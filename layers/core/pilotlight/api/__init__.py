"""HTTP at the handler's side: gateway events, routes and errors, and the bytes of each protocol."""
