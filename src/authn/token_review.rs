//! Tokens that only the API server knows: it is asked whose they are, by TokenReview.
//!
//! A question about one token is asked once, however many requests wait for the answer. Questions
//! under way are limited, and so are those that wait: a flood of unknown tokens takes bounded memory
//! here, and a bounded share of the API server.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::UserInfo;
use super::jwt::Jwt;
use super::service_account::time;
use super::token_cache::{Generation, TokenCache, TokenId, TokenUser};
use crate::upstream::Upstream;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Questions under way.
const IN_FLIGHT: usize = 64;
/// Tokens that are asked about or wait to be; what comes on top is refused with 503.
const WAITING: usize = 2048;
/// Bytes of a token that is asked about; real ones are shorter. With [`WAITING`], what a flood can
/// make the proxy hold.
const LONGEST: usize = 16 << 10;
/// How long a question may wait for its turn.
const TURN: Duration = Duration::from_secs(5);
/// Who the proxy is where its certificate is a front proxy's, which is nobody's by itself.
const OWN_NAME: HeaderValue = HeaderValue::from_static("kube-audit-proxy");

/// Asks the API server whose tokens are.
pub struct TokenReview {
    upstream: Upstream,
    settings: TokenReviewSettings,
    cache: Arc<TokenCache>,
    asking: Mutex<HashMap<TokenId, Shared<BoxFuture<'static, Answer>>>>,
    turns: Semaphore,
}

/// How the API server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenReviewSettings {
    /// Audiences that a token must be for one of; none for whatever the API server takes.
    pub audiences: Vec<String>,
    /// How long a user's token is remembered, at most until it expires.
    pub authenticated_ttl: Duration,
    /// How long a token that is nobody's is remembered.
    pub unauthenticated_ttl: Duration,
    /// Whether to name the proxy in `X-Remote-User`, because its certificate is a front proxy's.
    pub as_front_proxy: bool,
}

/// The API server could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// Whose a token is; `None` for nobody's.
type Answer = Result<Option<Arc<UserInfo>>, Unavailable>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    audiences: &'a [String],
}

#[derive(Deserialize)]
struct Reviewed {
    #[serde(default)]
    status: ReviewedStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReviewedStatus {
    authenticated: bool,
    user: ReviewedUser,
    audiences: Option<Vec<String>>,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReviewedUser {
    username: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

impl TokenReview {
    /// Asks `upstream` with the proxy's own credentials, and remembers answers in `cache`.
    pub fn new(
        upstream: Upstream,
        settings: TokenReviewSettings,
        cache: Arc<TokenCache>,
    ) -> TokenReview {
        let turns = Semaphore::new(IN_FLIGHT);
        TokenReview { upstream, settings, cache, asking: Mutex::default(), turns }
    }

    /// Whose `token` is; `None` for nobody's.
    ///
    /// # Errors
    /// If the API server cannot be asked, or has been asked too much.
    pub async fn user(self: &Arc<Self>, id: TokenId, token: &[u8]) -> Answer {
        let Ok(token) = std::str::from_utf8(token) else { return Ok(None) };
        if token.len() > LONGEST {
            tracing::debug!(bytes = token.len(), "a token is too long to be asked about");
            return Ok(None);
        }
        if self.cache.is_nobodys(&id) {
            return Ok(None);
        }
        let answer = {
            let mut asking = self.asking.lock().expect("nothing panics while holding the lock");
            match asking.get(&id) {
                Some(answer) => answer.clone(),
                None => {
                    // An answer may have come since the cache was looked at.
                    if let Some(TokenUser { user, .. }) = self.cache.user(&id) {
                        return Ok(Some(user));
                    }
                    if asking.len() >= WAITING {
                        tracing::debug!("too many unknown tokens at a time");
                        return Err(Unavailable);
                    }
                    let answer = self.clone().question(id, token.to_owned());
                    asking.insert(id, answer.clone());
                    answer
                }
            }
        };
        answer.await
    }

    /// A question under way; it is asked to the end, even if all who wait for it go away.
    fn question(self: Arc<Self>, id: TokenId, token: String) -> Shared<BoxFuture<'static, Answer>> {
        let task = tokio::spawn(async move {
            let asked = Asked { review: &self, id };
            let answer = self.ask(&id, &token).await;
            drop(asked);
            answer
        });
        async move { task.await.unwrap_or(Err(Unavailable)) }.boxed().shared()
    }

    async fn ask(&self, id: &TokenId, token: &str) -> Answer {
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let since = self.cache.generation();
        let Ok(Ok(_turn)) = turn else {
            tracing::debug!("an unknown token waited too long to be asked about");
            return Err(Unavailable);
        };
        let question = Question {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec { token, audiences: &self.settings.audiences },
        };
        let question = serde_json::to_vec(&question).expect("strings");
        let answered = self.upstream.post_json_with(PATH, self.headers(), question.into()).await;
        let (code, body) = answered.map_err(|error| {
            tracing::warn!(%error, "cannot ask the API server whose a token is");
            Unavailable
        })?;
        if code != StatusCode::CREATED && code != StatusCode::OK {
            tracing::warn!(
                code = code.as_u16(),
                "the API server refuses to say whose a token is; this proxy's user needs the verb create on tokenreviews.authentication.k8s.io, as ClusterRole system:auth-delegator gives it"
            );
            return Err(Unavailable);
        }
        self.read(since, id, token, &body)
    }

    fn headers(&self) -> HeaderMap {
        let name = HeaderName::from_static("x-remote-user");
        HeaderMap::from_iter(self.settings.as_front_proxy.then_some((name, OWN_NAME)))
    }

    fn read(&self, since: Generation, id: &TokenId, token: &str, body: &Bytes) -> Answer {
        let status = match serde_json::from_slice::<Reviewed>(body) {
            Ok(reviewed) => reviewed.status,
            Err(error) => {
                // The text may quote the answer, and that may repeat the token.
                tracing::warn!(category = ?error.classify(), "unreadable TokenReview");
                return Err(Unavailable);
            }
        };
        match user_of(status, &self.settings.audiences) {
            Ok(user) => {
                let user = Arc::new(user);
                let time = self.settings.authenticated_ttl.min(time_left(token));
                self.cache.remember_user(since, *id, user.clone().into(), time);
                Ok(Some(user))
            }
            Err(reason) => {
                tracing::debug!(reason, "the API server does not take a token");
                self.cache.remember_nobodys(since, *id, self.settings.unauthenticated_ttl);
                Ok(None)
            }
        }
    }
}

/// Ends a question, also where it panics.
struct Asked<'a> {
    review: &'a TokenReview,
    id: TokenId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut asking = self.review.asking.lock().expect("nothing panics while holding the lock");
        asking.remove(&self.id);
    }
}

/// The user that an answer names; otherwise why not.
fn user_of(status: ReviewedStatus, audiences: &[String]) -> Result<UserInfo, String> {
    let ReviewedStatus { authenticated, user, audiences: answered, error } = status;
    if !authenticated {
        return Err(error);
    }
    if !is_for_us(audiences, &answered.unwrap_or_default(), audiences) {
        return Err("it is for other audiences".to_owned());
    }
    if user.username.is_empty() {
        return Err("its user has no name".to_owned());
    }
    let user = UserInfo {
        username: user.username,
        uid: user.uid,
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    };
    Ok(user.into_authenticated())
}

/// Whether an answer to a question about `asked` audiences lets the token be used. Who does not
/// know of audiences answers none, and means the `implicit` ones.
fn is_for_us(asked: &[String], answered: &[String], implicit: &[String]) -> bool {
    let answered = if answered.is_empty() { implicit } else { answered };
    asked.is_empty() || answered.iter().any(|audience| asked.contains(audience))
}

/// How long a token that the API server takes is still valid, if it says so itself.
fn time_left(token: &str) -> Duration {
    #[derive(Deserialize)]
    struct Expiry {
        exp: f64,
    }
    Jwt::parse(token.as_bytes())
        .and_then(|jwt| serde_json::from_slice::<Expiry>(&jwt.claims).ok())
        .and_then(|claims| time(claims.exp))
        .map_or(Duration::MAX, |end| end.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, audiences: &[String]) -> Result<UserInfo, String> {
        let reviewed: Reviewed = serde_json::from_str(text).unwrap();
        user_of(reviewed.status, audiences)
    }

    #[test]
    fn users_are_read_in_full() {
        let text = r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"jane",
            "uid":"42","groups":["dev"],"extra":{"k":["v","w"]}},"audiences":["api"]}}"#;
        let user = read(text, &["api".into()]).unwrap();
        assert_eq!((user.username.as_str(), user.uid.as_str()), ("jane", "42"));
        assert_eq!(user.groups, ["dev", "system:authenticated"]);
        assert_eq!(user.extra["k"], ["v", "w"]);
        let sparse = r#"{"status":{"authenticated":true,"user":{"username":"j","groups":null}}}"#;
        assert_eq!(read(sparse, &[]).unwrap().groups, ["system:authenticated"]);
    }

    #[test]
    fn without_a_user_it_is_nobodys() {
        for text in [
            r#"{}"#,
            r#"{"status":{"user":{"username":"jane"}}}"#,
            r#"{"status":{"authenticated":false,"user":{"username":"jane"},"error":"expired"}}"#,
            r#"{"status":{"authenticated":true}}"#,
            r#"{"status":{"authenticated":true,"user":{"username":""}}}"#,
        ] {
            assert!(read(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn audiences_must_have_one_in_common() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let cases = [
            ("", "", "", true),
            ("", "b", "", true),
            ("a", "a", "", true),
            ("a", "b", "", false),
            ("a", "", "a", true),
            ("a", "", "b", false),
            ("a b", "b c", "", true),
        ];
        for (asked, answered, implicit, expected) in cases {
            let verdict = is_for_us(&list(asked), &list(answered), &list(implicit));
            assert_eq!(verdict, expected, "{asked:?} {answered:?} {implicit:?}");
        }
    }

    #[test]
    fn tokens_that_say_when_they_end_are_not_remembered_for_longer() {
        use base64::Engine;
        let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let token = |exp: u64| {
            let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
            let (header, claims) = (r#"{"alg":"RS256"}"#, format!(r#"{{"exp":{exp}}}"#));
            format!("{}.{}.AAAA", part(header), part(&claims))
        };
        let left = time_left(&token(now + 100));
        assert!((90..=100).contains(&left.as_secs()), "{left:?}");
        assert_eq!(time_left(&token(now - 100)), Duration::ZERO);
        assert_eq!(time_left("opaque"), Duration::MAX);
    }
}
