//! What the program does, seen from outside: the real binary, real TLS, one file a behaviour.

#![allow(clippy::unwrap_used, reason = "tests may panic, their helpers too")]

mod authentication_config;
mod authn;
mod backends;
mod barrier;
mod bodies;
mod constrained;
mod crash;
mod credentials;
mod decisions;
mod faults;
mod forwarding;
mod headers;
mod hot_reload;
mod identities;
mod impersonation;
mod impersonation_legacy;
mod kubectl;
mod lifecycle;
mod live;
mod lost_connections;
mod many_headers;
mod oidc;
mod own_access;
mod replay;
mod replay_bodies;
mod replay_impersonation;
mod rotation;
mod seal;
mod seal_faults;
mod self_test;
mod shutdown;
mod sinks;
mod streaming;
mod support;
mod token_flood;
mod token_review;
mod upgrade;
mod upstream_keys;
mod watches;
mod webhook;
mod webhook_client;
mod webhook_outages;
mod webhook_spool;
