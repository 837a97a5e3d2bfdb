//! Authorizes impersonation: tries the modes in kube-apiserver's order.

use k8s_audit::authorizer::{Attributes, RequestAttributes};

use super::access_review::{AccessReviews, Refusal};
use super::memory::{Allowed, LastModes, key};
use super::mode::Mode;
use super::rules::{ConstrainedImpersonation, Rules, RulesInForce};
use super::{Wanted, checks};
use crate::upstream::Upstream;
use k8s_audit::status::Status;
use kube_authn::UserInfo;

/// Authorizes impersonation with SubjectAccessReviews, and caches what was allowed for a short
/// time.
pub struct Reviewer {
    reviews: AccessReviews,
    rules: RulesInForce,
    /// Allowed requests.
    requests: Allowed,
    /// Allowed identities, for any request.
    identities: Allowed,
    last: LastModes,
}

/// An allowed impersonation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The impersonated user.
    pub user: UserInfo,
    /// `impersonationConstraint` of the event; `None` where the verb `impersonate` allowed it.
    pub constraint: Option<&'static str>,
}

impl Reviewer {
    /// Creates a reviewer that sends reviews to `upstream` with the proxy's own credentials.
    pub fn new(upstream: Upstream, setting: ConstrainedImpersonation) -> Reviewer {
        Reviewer {
            reviews: AccessReviews::new(upstream.clone()),
            rules: RulesInForce::new(setting, upstream),
            requests: Allowed::default(),
            identities: Allowed::default(),
            last: LastModes::default(),
        }
    }

    /// Returns the rules by which impersonation is currently authorized.
    ///
    /// # Errors
    /// If they cannot be determined.
    pub async fn rules(&self) -> Result<Rules, Refusal> {
        self.rules.now().await
    }

    /// Authorizes `caller` to do `request` as `wanted`, and returns the impersonated user.
    ///
    /// # Errors
    /// See [`Refusal`]. If several modes refuse, the first refusal is returned: that of the mode
    /// that the caller used last, or else of the first mode that applies.
    pub async fn authorize(
        &self,
        caller: &UserInfo,
        wanted: Wanted,
        request: &RequestAttributes,
    ) -> Result<Granted, Refusal> {
        if self.rules().await? == Rules::LegacyOnly {
            self.legacy(Rules::LegacyOnly, caller, wanted.as_asked()).await?;
            return Ok(Granted { user: wanted.into_user(), constraint: None });
        }
        let last = self.last.of(&caller.username);
        let others = Mode::ALL.into_iter().filter(|mode| Some(*mode) != last);
        let mut refused: Option<Status> = None;
        for mode in last.into_iter().chain(others) {
            if !mode.applies(caller, wanted.as_asked()) {
                continue;
            }
            match self.by(mode, caller, wanted.as_asked(), request).await {
                Ok(()) => {
                    if last != Some(mode) {
                        self.last.set(&caller.username, mode);
                    }
                    let constraint = mode.constraint();
                    return Ok(Granted { user: granted(wanted, mode), constraint });
                }
                Err(Refusal::Forbidden(status)) => {
                    refused.get_or_insert(status);
                }
                // Whether a later mode would allow it cannot be determined either.
                Err(unavailable) => return Err(unavailable),
            }
        }
        Err(Refusal::Forbidden(refused.expect("the last mode applies to everybody")))
    }

    async fn by(
        &self,
        mode: Mode,
        caller: &UserInfo,
        wanted: &UserInfo,
        request: &RequestAttributes,
    ) -> Result<(), Refusal> {
        if mode == Mode::Legacy {
            return self.legacy(Rules::Constrained, caller, wanted).await;
        }
        let asker = mode.asker(caller);
        // A pod's own node has the same authorization on all nodes; `Mode::applies` has checked the
        // name.
        let any_node = UserInfo { username: "system:node:*".into(), ..UserInfo::default() };
        let known_as = if mode == Mode::AssociatedNode { &any_node } else { wanted };
        let whole = key(mode, &asker, known_as, Some(request));
        if request.is_understood() && self.requests.contains(&whole) {
            return Ok(());
        }
        let verb = mode.verb_on(request.verb());
        let asked = Attributes { user: &asker, verb: &verb, object: request.object() };
        self.reviews.ask(Rules::Constrained, &asked).await?;
        let identity = key(mode, &asker, known_as, None);
        if !self.identities.contains(&identity) {
            let checks = checks::of(mode, Rules::Constrained, &asker, wanted);
            checks::pass(&self.reviews, Rules::Constrained, &checks).await?;
            self.identities.insert(identity);
        }
        if request.is_understood() {
            self.requests.insert(whole);
        }
        Ok(())
    }

    /// kube-apiserver caches nothing here: its authorization is not a request over the network.
    async fn legacy(
        &self,
        rules: Rules,
        caller: &UserInfo,
        wanted: &UserInfo,
    ) -> Result<(), Refusal> {
        let identity = key(Mode::Legacy, caller, wanted, None);
        if self.identities.contains(&identity) {
            return Ok(());
        }
        let checks = checks::of(Mode::Legacy, rules, caller, wanted);
        checks::pass(&self.reviews, rules, &checks).await?;
        self.identities.insert(identity);
        Ok(())
    }
}

fn granted(wanted: Wanted, mode: Mode) -> UserInfo {
    match mode {
        Mode::AssociatedNode | Mode::ArbitraryNode => wanted.into_node(),
        Mode::ServiceAccount | Mode::UserInfo | Mode::Legacy => wanted.into_user(),
    }
}
