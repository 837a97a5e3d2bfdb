//! Applies audit policies to recorded requests.
//!
//! | module | what it does |
//! |---|---|
//! | [`event`] | a recorded event as the request that a policy evaluates |
//! | [`replay`] | how often rules match, how much they write, and what a change gains and loses |
//! | [`suggest`] | rules for frequent reads of system components |
//!
//! Policies are evaluated by [`k8s_audit::policy`], by the same code as in the proxy.

pub mod event;
pub mod replay;
pub mod suggest;
