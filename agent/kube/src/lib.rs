//! The API-server side of the agent: watches, node, lease, status, events, tokens.
