//! Streaming responses: watches and followed logs.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::Api;
use super::error::ApiError;
use super::handler::{self, Body, Call};
use super::kinds::Kind;
use super::resource::{self, Shape, parameter};
use super::selector::Selector;
use super::table;
use super::watch::{Event, Watch};

type Answer = Result<Response<Body>, ApiError>;

/// kube-apiserver ends watches without a timeout after 30 to 60 minutes.
const WATCH_LIMIT: Duration = Duration::from_secs(1800);
/// The interval between lines of a followed log.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// Responds to a watch request.
///
/// # Errors
/// 400 for an invalid version, 410 for one that is no longer in the history.
pub(crate) fn watch(
    api: &Api,
    kind: &Kind,
    namespace: &str,
    selector: Selector,
    call: &Call,
) -> Answer {
    let version = parameter(call, "resourceVersion");
    let since = match version.as_str() {
        "" | "0" => None,
        text => Some(
            text.parse()
                .map_err(|_| ApiError::bad_request(format!("invalid resource version {text:?}")))?,
        ),
    };
    let initial_events = parameter(call, "sendInitialEvents") == "true";
    let since = since.filter(|_| !initial_events);
    let mut watch = api.watch(kind, namespace, selector, since)?;
    if initial_events {
        watch.push_bookmark();
    }
    let seconds = parameter(call, "timeoutSeconds").parse().ok().filter(|s| *s > 0);
    let frames = Frames {
        watch,
        kind: kind.clone(),
        shape: Shape::of(call),
        include: resource::include(call),
        end: Instant::now() + seconds.map_or(WATCH_LIMIT, Duration::from_secs),
        columns_sent: false,
        ended: false,
    };
    let frames = stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((frame, frames))
    });
    Ok(handler::stream(StatusCode::OK, "application/json", lasting(frames)))
}

fn lasting(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures_util::StreamExt;
    StreamBody::new(chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)))).boxed_unsync()
}

/// The frames of one watch.
struct Frames {
    watch: Watch,
    kind: Kind,
    shape: Shape,
    include: table::Include,
    end: Instant,
    columns_sent: bool,
    ended: bool,
}

impl Frames {
    /// Returns the next frame; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let event = tokio::time::timeout_at(self.end, self.watch.next()).await.ok()?;
        self.ended = matches!(event, Event::Expired(..));
        let frame = json!({"type": event.name(), "object": self.object(&event)});
        Some(format!("{frame}\n").into())
    }

    fn object(&mut self, event: &Event) -> Value {
        match event {
            Event::Added(object) | Event::Modified(object) | Event::Deleted(object) => {
                self.shown(object)
            }
            Event::Bookmark(version) => {
                let mut object = json!({
                    "kind": self.kind.kind,
                    "apiVersion": self.kind.api_version(),
                    "metadata": {
                        "resourceVersion": version.to_string(),
                        "annotations": {"k8s.io/initial-events-end": "true"},
                    },
                });
                if self.shape == Shape::Table {
                    object = self.shown(&object);
                }
                object
            }
            Event::Expired(asked, oldest) => ApiError::expired(*asked, *oldest).status(),
        }
    }

    fn shown(&mut self, object: &Value) -> Value {
        match self.shape {
            Shape::Object => resource::in_version(&self.kind, object).into_owned(),
            Shape::Partial => table::partial(object),
            Shape::Table => {
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let mut table = table::table(&self.kind, [object], self.include, first);
                table["metadata"] =
                    json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table
            }
        }
    }
}

/// Responds to a request for a pod's log: a few lines, and one each second if it is followed.
///
/// # Errors
/// 404, and 400 for a container that the pod does not have.
pub(crate) fn log(api: &Api, kind: &Kind, namespace: &str, name: &str, call: &Call) -> Answer {
    let pod = api.get(kind, namespace, name)?;
    let container = parameter(call, "container");
    let containers = pod["spec"]["containers"].as_array();
    let mut names = containers.into_iter().flatten().map(|c| &c["name"]);
    if !container.is_empty() && !names.any(|n| *n == container.as_str()) {
        let message = format!("container {container} is not valid for pod {name}");
        return Err(ApiError::bad_request(message));
    }
    let mut lines = vec![
        format!("{name}: started"),
        format!("{name}: listening on :8080"),
        format!("{name}: ready"),
    ];
    if let Ok(tail) = parameter(call, "tailLines").parse::<usize>() {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let follow = !matches!(parameter(call, "follow").as_str(), "" | "false" | "0");
    let body = if follow {
        let state = (api.clone(), kind.clone(), namespace.to_owned(), name.to_owned());
        let more = stream::unfold((state, 0_u64), |(state, count)| async move {
            let (api, kind, namespace, name) = &state;
            tokio::time::sleep(LOG_PERIOD).await;
            // The log ends when the pod is deleted.
            api.get(kind, namespace, name).ok()?;
            let line = format!("{name}: request {count} served\n");
            Some((Bytes::from(line), (state, count + 1)))
        });
        use futures_util::StreamExt;
        lasting(stream::iter([Bytes::from(text)]).chain(more))
    } else {
        lasting(stream::iter([Bytes::from(text)]))
    };
    Ok(handler::stream(StatusCode::OK, "text/plain", body))
}
