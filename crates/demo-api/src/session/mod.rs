//! Sessions of the demo: `exec`, `attach` and `port-forward`, over WebSocket and SPDY/3.1.
//!
//! Nothing runs in the pods of the demo. A toy shell simulates their programs, well enough to try
//! recordings, and to copy files.

mod files;
mod forward;
mod shell;
mod wire;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use session_recording::protocol::{self, SPDY_PROTOCOL};
use session_recording::{Activity, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use self::files::Files;

use self::shell::Shell;
use self::wire::{ClientMessage, Wire};
use super::error::ApiError;
use super::handler::Body;
use k8s_audit::request::query::{self, Plus};

/// Maximum number of bytes per read.
const CHUNK: usize = 32 << 10;

/// A container of a pod as the target of a session.
pub(crate) struct Target {
    /// The requested activity.
    pub activity: Activity,
    /// `NAMESPACE/NAME`
    pub pod: String,
    /// The query of the request.
    pub query: String,
}

/// Switches protocols and serves the session in a task.
///
/// # Errors
/// 400 if the client offers no protocol that this server supports.
pub(crate) fn upgrade(
    mut request: Request<Incoming>,
    target: Target,
    files: Files,
) -> Result<Response<Body>, ApiError> {
    let accepted = accept(target.activity, request.headers())?;
    let protocol = protocol::negotiated(target.activity, request.headers(), &accepted)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let is_spdy = matches!(protocol, Protocol::Spdy | Protocol::SpdyInWebSocket { .. });
    if target.activity == Activity::PortForward && !is_spdy {
        return Err(ApiError::bad_request("the demo forwards ports over SPDY/3.1 only"));
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                if let Err(error) = serve(TokioIo::new(upgraded), protocol, target, files).await {
                    tracing::debug!(%error, "demo: a session ended");
                }
            }
            Err(error) => tracing::debug!(%error, "demo: an upgrade failed"),
        }
    });
    let mut response = Response::new(Empty::<Bytes>::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = accepted;
    Ok(response)
}

/// Returns the headers that select the best protocol that the client offers.
fn accept(activity: Activity, request: &HeaderMap) -> Result<HeaderMap, ApiError> {
    const PREFERRED: [&str; 8] = [
        "SPDY/3.1+portforward.k8s.io",
        "portforward.k8s.io",
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "base64.channel.k8s.io",
        "v3.channel.k8s.io",
        "channel.k8s.io",
    ];
    let bad = |message: &str| ApiError::bad_request(message);
    protocol::check_offer(activity, request)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let upgrade = request.get(header::UPGRADE).ok_or_else(|| bad("Upgrade request required"))?;
    let mut accepted = HeaderMap::new();
    accepted.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    accepted.insert(header::UPGRADE, upgrade.clone());
    let is_spdy = upgrade.as_bytes().eq_ignore_ascii_case(b"SPDY/3.1");
    let name = if is_spdy { SPDY_PROTOCOL } else { header::SEC_WEBSOCKET_PROTOCOL };
    let lines = request.get_all(&name).iter().filter_map(|line| line.to_str().ok());
    let offered: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    if let Some(chosen) = PREFERRED.into_iter().find(|name| offered.contains(name)) {
        accepted.insert(name, HeaderValue::from_static(chosen));
    }
    if !is_spdy {
        let key = request.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("no WebSocket key"))?;
        let accept = wire::websocket_accept(key.as_bytes());
        let accept = HeaderValue::from_str(&accept).map_err(|_| bad("bad WebSocket key"))?;
        accepted.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(accepted)
}

/// Reads input, and sends output, until the session ends or the client disconnects.
async fn serve(
    mut stream: TokioIo<hyper::upgrade::Upgraded>,
    protocol: Protocol,
    target: Target,
    files: Files,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut wire = Wire::new(protocol, &target.query);
    let mut out = Vec::new();
    let mut shell = Shell::new(&target, files);
    let mut forward = forward::Forward::new(target.pod.clone());
    let is_forwarding = target.activity == Activity::PortForward;
    let mut buffer = vec![0; CHUNK];
    let mut has_started = false;
    loop {
        if !is_forwarding && !has_started && wire.is_ready() {
            has_started = true;
            shell.start();
            deliver(&mut shell, &mut wire, &mut out);
        }
        if !out.is_empty() {
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
        if shell.exit_code().is_some() {
            break;
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        for arrived in wire.receive(&buffer[..read], &mut out)? {
            match arrived {
                ClientMessage::Input(bytes) => shell.input(&bytes),
                ClientMessage::InputEnded => shell.input_ended(),
                ClientMessage::Resized(columns, rows) => shell.resized(columns, rows),
                ClientMessage::Forwarded { id, bytes } => {
                    forward.received(id, &bytes, &mut wire, &mut out)
                }
                // kubectl closes a connection only when its stream of errors has ended, too.
                ClientMessage::ErrorsEnded(id) if is_forwarding => {
                    wire.forwarded(id, b"", true, &mut out);
                }
                ClientMessage::ErrorsEnded(_) => {}
                ClientMessage::ForwardEnded(id) => forward.ended(id, &mut wire, &mut out),
            }
        }
        if has_started {
            deliver(&mut shell, &mut wire, &mut out);
        }
    }
    stream.shutdown().await?;
    // The connection must stay open until the client has read everything, even if it still sends
    // data.
    let linger = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), linger).await;
    Ok(())
}

/// Appends frames with the output of the shell and its exit code.
fn deliver(shell: &mut Shell, wire: &mut Wire, out: &mut Vec<u8>) {
    for (stream, bytes) in shell.take_output() {
        wire.output(stream, &bytes, out);
    }
    if let Some(code) = shell.exit_code() {
        wire.exited(code, out);
    }
}

/// Returns all values of a parameter of a query.
fn values(query: &str, name: &str) -> Vec<String> {
    let decode = |text: &str| {
        query::decode(text, Plus::IsSpace).map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter(|(key, _)| decode(key).is_some_and(|key| key == name))
        .filter_map(|(_, value)| decode(value))
        .collect()
}

/// Returns whether a parameter is set.
fn is_set(query: &str, name: &str) -> bool {
    values(query, name).iter().any(|value| matches!(value.as_str(), "true" | "1"))
}
