//! Tests of the real binary over real TLS connections. Each file tests one behavior.

#![allow(unreachable_pub, reason = "a program has no public interface")]
#![allow(clippy::unwrap_used, reason = "tests may panic, their helpers too")]

mod authentication_config;
mod authn;
mod authorization;
mod backends;
mod barrier;
mod bodies;
mod certificates;
mod constrained;
mod crash;
mod credentials;
mod decisions;
mod faults;
mod filters;
mod forwarding;
mod headers;
mod hot_reload;
mod identities;
mod impersonation;
mod impersonation_legacy;
mod kubeconfig;
mod kubeconfig_command;
mod kubeconfig_files;
#[cfg(feature = "demo")]
mod kubectl;
#[cfg(feature = "demo")]
mod kubectl_sessions;
mod lifecycle;
mod limits;
mod live;
mod live_bodies;
mod log_follow;
mod log_index;
mod log_query;
mod log_recount;
mod log_report;
mod lost_connections;
mod many_headers;
mod metrics;
mod notify;
mod object_storage;
mod oidc;
mod output;
mod own_access;
mod plugins;
mod policy;
mod policy_live;
mod proxy_protocol;
mod recorded_truth;
mod replay;
mod replay_bodies;
mod replay_impersonation;
mod restart;
mod rotation;
mod seal;
mod seal_faults;
mod seal_proof;
mod self_test;
mod session_recording;
mod several_servers;
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
