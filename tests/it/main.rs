//! What the program does, seen from outside: the real binary, real TLS, one file a behaviour.

#![allow(clippy::unwrap_used, reason = "tests may panic, their helpers too")]

mod authentication_config;
mod authn;
mod backends;
mod bodies;
mod crash;
mod decisions;
mod faults;
mod forwarding;
mod headers;
mod hot_reload;
mod identities;
mod impersonation;
mod kubectl;
mod lifecycle;
mod oidc;
mod replay;
mod self_test;
mod streaming;
mod support;
mod token_review;
mod upgrade;
mod watches;
mod webhook;
