//! Health checks of a member: `GET /readyz` every 2 seconds, and at once if a connection fails or
//! no response comes any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderValue, Method, Request};
use tokio::time::Instant;

use super::{EndpointSet, Health, Member};
use crate::client::ProbeError;

/// Intervals of checks of a healthy member, and of an unhealthy one.
const INTERVAL: Duration = Duration::from_secs(2);
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The time that a check may take. Half a second if requests wait and no response comes: they move
/// to another member, and should not be late by more than a second.
const TIMEOUT: Duration = Duration::from_secs(1);
const STALLED_TIMEOUT: Duration = Duration::from_millis(400);
/// The interval at which the task looks for responses, and the least time between two checks that
/// run because none has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(150);
const STALLED_INTERVAL: Duration = Duration::from_millis(250);

/// Checks `member` until it is removed or the set is dropped.
pub(super) async fn watch(set: Weak<EndpointSet>, member: Arc<Member>) {
    let mut timeout = TIMEOUT;
    loop {
        let Some(alive) = set.upgrade() else { return };
        if member.is_removed() {
            return;
        }
        let as_front_proxy = alive.is_front_proxy;
        drop(alive);
        let (health, reason) = check(&member, as_front_proxy, timeout).await;
        let Some(alive) = set.upgrade() else { return };
        if member.is_removed() {
            return;
        }
        if member.checked(health, reason) {
            alive.came_up.notify_waiters();
        }
        drop(alive);
        timeout = wait(&member).await;
    }
}

/// Waits until the next check is due; returns the time that it may take.
async fn wait(member: &Member) -> Duration {
    let began = Instant::now();
    let interval = if member.is_usable() { INTERVAL } else { RECHECK_INTERVAL };
    let mut before = member.progress();
    loop {
        let left = interval.saturating_sub(began.elapsed());
        tokio::select! {
            () = member.check_now.notified() => return TIMEOUT,
            () = tokio::time::sleep(left.min(LOOK_INTERVAL)) => {}
        }
        if began.elapsed() >= interval {
            return TIMEOUT;
        }
        let now = member.progress();
        let is_stalled = before.0 > 0 && now.0 > 0 && before.1 == now.1;
        if is_stalled && member.is_usable() && began.elapsed() >= STALLED_INTERVAL {
            return STALLED_TIMEOUT;
        }
        if !is_stalled {
            before = now;
        }
    }
}

async fn check(member: &Member, as_front_proxy: bool, timeout: Duration) -> (Health, String) {
    let mut request = Request::new(bytes::Bytes::new());
    *request.method_mut() = Method::GET;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
    if as_front_proxy {
        let own_name = HeaderValue::from_static("kube-audit-proxy");
        request.headers_mut().insert("x-remote-user", own_name);
    }
    match member.client.probe("/readyz", request, timeout).await {
        Ok(status) if status.is_server_error() => {
            (Health::NotReady, format!("/readyz returned {}", status.as_u16()))
        }
        Ok(_) => (Health::Healthy, String::new()),
        Err(ProbeError::TimedOut) => {
            (Health::Down, format!("no response to /readyz in {} ms", timeout.as_millis()))
        }
        Err(ProbeError::Failed(reason)) => (Health::Down, reason),
    }
}
