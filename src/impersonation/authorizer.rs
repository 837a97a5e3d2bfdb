//! Authorizes impersonation: tries the modes in kube-apiserver's order.

use k8s_audit::authorizer::{Attributes, RequestAttributes};

use super::access_review::{AccessReviews, Refusal};
use super::cache::{Allowed, LastModes, key};
use super::mode::Mode;
use super::rules::{ActiveRules, ConstrainedImpersonation, Rules};
use super::{ImpersonationRequest, checks};
use crate::upstream::Upstream;
use k8s_audit::status::Status;
use kube_authn::UserInfo;

/// Authorizes impersonation with SubjectAccessReviews, and caches allowed impersonations for a
/// short time.
pub struct ImpersonationAuthorizer {
    reviews: AccessReviews,
    rules: ActiveRules,
    /// Allowed combinations of identity and request.
    requests: Allowed,
    /// Allowed identities, for any request.
    identities: Allowed,
    last: LastModes,
}

/// An allowed impersonation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImpersonatedUser {
    /// The impersonated user.
    pub user: UserInfo,
    /// `impersonationConstraint` of the event; `None` if the verb `impersonate` allowed it.
    pub constraint: Option<&'static str>,
}

impl ImpersonationAuthorizer {
    /// Creates an authorizer that sends reviews to `upstream` with the proxy's own credentials.
    pub fn new(upstream: Upstream, setting: ConstrainedImpersonation) -> ImpersonationAuthorizer {
        ImpersonationAuthorizer {
            reviews: AccessReviews::new(upstream.clone()),
            rules: ActiveRules::new(setting, upstream),
            requests: Allowed::default(),
            identities: Allowed::default(),
            last: LastModes::default(),
        }
    }

    /// Returns the active rules for authorizing impersonation.
    ///
    /// # Errors
    /// Returns an error if they cannot be determined.
    pub async fn rules(&self) -> Result<Rules, Refusal> {
        self.rules.current().await
    }

    /// Authorizes `caller` to do `request` as the requested user, and returns the impersonated
    /// user.
    ///
    /// # Errors
    /// See [`Refusal`]. If several modes deny the request, returns the denial of the mode that the
    /// caller used last, otherwise that of the first mode that applies.
    pub async fn authorize(
        &self,
        caller: &UserInfo,
        impersonation: ImpersonationRequest,
        request: &RequestAttributes,
    ) -> Result<ImpersonatedUser, Refusal> {
        if self.rules().await? == Rules::LegacyOnly {
            self.legacy(Rules::LegacyOnly, caller, impersonation.requested_user()).await?;
            return Ok(ImpersonatedUser { user: impersonation.into_user(), constraint: None });
        }
        let last = self.last.of(&caller.username);
        let others = Mode::ALL.into_iter().filter(|mode| Some(*mode) != last);
        let mut refused: Option<Status> = None;
        for mode in last.into_iter().chain(others) {
            if !mode.applies(caller, impersonation.requested_user()) {
                continue;
            }
            match self.by(mode, caller, impersonation.requested_user(), request).await {
                Ok(()) => {
                    if last != Some(mode) {
                        self.last.set(&caller.username, mode);
                    }
                    let constraint = mode.constraint();
                    return Ok(ImpersonatedUser {
                        user: impersonated_user(impersonation, mode),
                        constraint,
                    });
                }
                Err(Refusal::Forbidden(status)) => {
                    refused.get_or_insert(status);
                }
                // A later mode could not be authorized either.
                Err(unavailable) => return Err(unavailable),
            }
        }
        Err(Refusal::Forbidden(refused.expect("the last mode applies to everybody")))
    }

    async fn by(
        &self,
        mode: Mode,
        caller: &UserInfo,
        requested: &UserInfo,
        request: &RequestAttributes,
    ) -> Result<(), Refusal> {
        if mode == Mode::Legacy {
            return self.legacy(Rules::Constrained, caller, requested).await;
        }
        let requester = mode.requester(caller);
        // For a pod's own node, the result is the same on all nodes; `Mode::applies` has checked
        // the name.
        let any_node = UserInfo { username: "system:node:*".into(), ..UserInfo::default() };
        let known_as = if mode == Mode::AssociatedNode { &any_node } else { requested };
        let whole = key(mode, &requester, known_as, Some(request));
        if request.is_understood() && self.requests.contains(&whole) {
            return Ok(());
        }
        let verb = mode.verb_on(request.verb());
        let action = Attributes { user: &requester, verb: &verb, object: request.object() };
        self.reviews.review(Rules::Constrained, &action).await?;
        let identity = key(mode, &requester, known_as, None);
        if !self.identities.contains(&identity) {
            let checks = checks::of(mode, Rules::Constrained, &requester, requested);
            checks::pass(&self.reviews, Rules::Constrained, &checks).await?;
            self.identities.insert(identity);
        }
        if request.is_understood() {
            self.requests.insert(whole);
        }
        Ok(())
    }

    /// Unlike kube-apiserver, caches the result, because each authorization is a request over the
    /// network.
    async fn legacy(
        &self,
        rules: Rules,
        caller: &UserInfo,
        requested: &UserInfo,
    ) -> Result<(), Refusal> {
        let identity = key(Mode::Legacy, caller, requested, None);
        if self.identities.contains(&identity) {
            return Ok(());
        }
        let checks = checks::of(Mode::Legacy, rules, caller, requested);
        checks::pass(&self.reviews, rules, &checks).await?;
        self.identities.insert(identity);
        Ok(())
    }
}

fn impersonated_user(impersonation: ImpersonationRequest, mode: Mode) -> UserInfo {
    match mode {
        Mode::AssociatedNode | Mode::ArbitraryNode => impersonation.into_node(),
        Mode::ServiceAccount | Mode::UserInfo | Mode::Legacy => impersonation.into_user(),
    }
}
