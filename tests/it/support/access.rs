//! A fake API server that authorizes with a list of permissions, and stores the reviews that it
//! received.

use std::sync::{Arc, Mutex};

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::upstream::{self, Answered, FakeUpstream, Protocols, Seen};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const VERSION: &str = "/version";

/// A SubjectAccessReview.
#[derive(Clone, Debug)]
pub struct Question {
    /// `VERB RESOURCE[.GROUP][/SUBRESOURCE] [NAMESPACE]/[NAME]`, or `VERB PATH`.
    pub about: String,
    /// Its `spec`.
    pub spec: Value,
    pub allowed: bool,
}

impl Question {
    fn new(spec: Value, rights: &[(&str, &str)]) -> Self {
        let about = match &spec["nonResourceAttributes"] {
            Value::Null => resource(&spec["resourceAttributes"]),
            path => format!("{} {}", text(path, "verb"), text(path, "path")),
        };
        let has = |right: &str| match right.strip_suffix("...") {
            Some(start) => about.starts_with(start),
            None => about == right,
        };
        let allowed = rights.iter().any(|(user, right)| spec["user"] == *user && has(right));
        Self { about, spec, allowed }
    }
}

fn resource(asked: &Value) -> String {
    let after = |mark: &str, name: &str| match text(asked, name) {
        "" => String::new(),
        text => format!("{mark}{text}"),
    };
    format!(
        "{} {}{}{} {}/{}",
        text(asked, "verb"),
        text(asked, "resource"),
        after(".", "group"),
        after("/", "subresource"),
        text(asked, "namespace"),
        text(asked, "name"),
    )
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or("")
}

/// The API server.
pub struct AccessServer {
    pub upstream: FakeUpstream,
    questions: Arc<Mutex<Vec<Question>>>,
}

impl AccessServer {
    /// Starts a server of this version (`1.36`) with these `rights`: user, and [`Question::about`]
    /// or a prefix of it followed by `...`. All other requests get the response `{}`.
    pub async fn start(
        version: &'static str,
        rights: &'static [(&'static str, &'static str)],
    ) -> Self {
        let questions = Arc::<Mutex<Vec<Question>>>::default();
        let asked = Arc::clone(&questions);
        let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
            answer(request, version, rights, Arc::clone(&asked))
        })
        .await;
        Self { upstream, questions }
    }

    /// Returns the reviews since the last call.
    pub fn take_questions(&self) -> Vec<Question> {
        std::mem::take(&mut *self.questions.lock().unwrap())
    }

    /// Returns the reviews with their results, in alphabetical order, because the order of
    /// concurrent reviews is not deterministic.
    pub fn take_asked(&self) -> Vec<String> {
        let questions = self.take_questions();
        let answered =
            |q: Question| format!("{} {}", if q.allowed { "yes" } else { "no" }, q.about);
        let mut asked: Vec<String> = questions.into_iter().map(answered).collect();
        asked.sort_unstable();
        asked
    }

    /// Returns the forwarded requests of clients.
    pub fn take_forwarded(&self) -> Vec<Seen> {
        let mut seen = self.upstream.take_seen();
        seen.retain(|seen| ![REVIEWS, VERSION].contains(&seen.target.as_str()));
        seen
    }
}

async fn answer(
    request: Request<Incoming>,
    version: &'static str,
    rights: &'static [(&'static str, &'static str)],
    asked: Arc<Mutex<Vec<Question>>>,
) -> Answered {
    match request.uri().path() {
        REVIEWS => {
            let body = request.into_body().collect().await?.to_bytes();
            let mut review: Value = serde_json::from_slice(&body)?;
            let question = Question::new(review["spec"].take(), rights);
            review["status"] = json!({"allowed": question.allowed});
            asked.lock().unwrap().push(question);
            upstream::json(201, review.to_string())
        }
        VERSION if version.is_empty() => upstream::json(403, "{}"),
        VERSION => {
            let (major, minor) = version.split_once('.').unwrap_or((version, ""));
            upstream::json(200, json!({"major": major, "minor": minor}).to_string())
        }
        _ => upstream::json(200, "{}"),
    }
}
