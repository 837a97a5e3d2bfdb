//! Builds the request that the API server receives: removes headers that clients may not set,
//! authorizes impersonation, and sets the identity.

use api_client::exec::OwnCredential;
use http::Request;
use http::request::Parts;
use http_body::Body;

use super::connection::Connection;
use super::forward::Refused;
use super::proxy::Proxy;
use super::{buffer, credentials};
use crate::audit::record::AuditContext;
use crate::body::{ClientBody, RequestBody};
use crate::filters::Deadline;
use crate::impersonation::{
    self, ImpersonationError, ImpersonationRequest, Refusal, RequestAttributes, Rules,
};
use crate::request::headers::{self, AUDIT_ID};
use crate::upstream::access::Access;
use crate::upstream::identity::Identity;
use audit_log::CommitSequence;
use k8s_audit::status::Status;
use kube_authn::{Authenticated, User};

/// Builds the request for the API server: removes headers that clients may not set, and adds the
/// identity. The target is sent as it was received.
///
/// # Errors
/// Returns why the request is not forwarded.
pub(super) async fn outgoing(
    proxy: &Proxy,
    connection: &Connection,
    parts: Parts,
    body: ClientBody,
    record: &mut AuditContext,
    caller: &Authenticated,
    deadline: Option<&Deadline>,
) -> Result<Request<RequestBody>, Refused> {
    let Parts { method, mut headers, .. } = parts;
    let found = headers::strip(&mut headers)?;
    let done_as = if found.impersonation {
        let requested = impersonation::parse_headers(&headers);
        Box::pin(impersonate(proxy, &connection.sequence, requested, record, caller)).await?
    } else {
        None
    };

    proxy.authenticator.remove_front_proxy_headers(&mut headers);
    if found.websocket_protocol && proxy.identity != Identity::PassThrough {
        kube_authn::websocket::remove_token(&mut headers);
    }
    proxy.trusted_proxies.forward(&mut headers, &connection.forwarded_for);
    headers.insert(AUDIT_ID, record.facts().audit_id.clone());
    if proxy.identity == Identity::PassThrough {
        let message = match caller.method {
            kube_authn::Method::Certificate => {
                "this proxy forwards bearer tokens and cannot forward a client certificate; authenticate with a token, without a client certificate"
            }
            kube_authn::Method::FrontProxy => {
                "this proxy forwards bearer tokens and cannot forward the user that a front proxy names; let the front proxy forward the token, without its client certificate"
            }
            kube_authn::Method::Token | kube_authn::Method::Anonymous => "",
        };
        if !message.is_empty() {
            return Err(Box::new(Status::forbidden(message, None)).into());
        }
    }
    let done_as = done_as.map(User::from);
    let user = done_as.as_ref().unwrap_or(&caller.user);
    if let (Some(limits), Some(deadline)) = (proxy.filters.limits(), deadline) {
        let permit = Box::pin(limits.acquire(record.facts().info.verb(), user)).await?;
        deadline.hold(permit);
    }
    let OwnCredential { header: own, generation } = match proxy.upstream.credential() {
        Some(own) => own,
        None if proxy.identity == Identity::PassThrough => OwnCredential::default(),
        // Rare, and too large to be a part of every request's future.
        None => Box::pin(credentials::wait_for_own(proxy, record)).await?,
    };
    // A client's own token cannot be renewed.
    let generation = generation.filter(|_| proxy.identity != Identity::PassThrough);
    let stamped = proxy.identity.stamp(&mut headers, user, own);
    let stamped = stamped.and_then(|()| match &proxy.original_user_extra {
        Some(extra) => extra.stamp(&mut headers, &caller.user),
        None => Ok(()),
    });
    stamped.map_err(|error| {
        tracing::warn!(%error, "request not sent: its user does not fit into headers");
        Box::new(Status::bad_request(format!("the request was not sent: {error}")))
    })?;

    let body = if body.is_end_stream() {
        RequestBody::EMPTY
    } else {
        let tap = record.tap_request(&headers);
        match tap {
            Some(tap) if record.refuses_ambiguous() => {
                Box::pin(buffer::buffer(record, &headers, body, tap)).await?
            }
            tap => RequestBody::Client { body, tap },
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = record.facts().target.clone().into();
    *request.headers_mut() = headers;
    credentials::mark(&mut request, generation, &record.facts().info);
    Ok(request)
}

/// Authorizes the client's impersonation if this proxy is responsible for that; returns the
/// impersonated user.
async fn impersonate(
    proxy: &Proxy,
    sequence: &CommitSequence,
    parsed: Result<Option<ImpersonationRequest>, ImpersonationError>,
    record: &mut AuditContext,
    caller: &Authenticated,
) -> Result<Option<kube_authn::UserInfo>, Box<Status>> {
    let authorizes = proxy.identity == Identity::Impersonate;
    let impersonation = match parsed {
        Ok(None) => return Ok(None),
        Ok(Some(impersonation)) => impersonation,
        Err(error) => {
            let rules = if authorizes {
                proxy.impersonation_authorizer.rules().await?
            } else {
                Rules::Constrained
            };
            return Err(Box::new(error.status(rules)));
        }
    };
    if !authorizes {
        record.impersonation_requested(impersonation.into_user());
        return Ok(None);
    }
    if let Some(extra) = &proxy.original_user_extra
        && impersonation.requested_user().extra.contains_key(extra.key())
    {
        let key = extra.key();
        let message = format!(
            "impersonating the extra {key:?} is not allowed: this proxy sets it to the original user"
        );
        return Err(Box::new(Status::forbidden(message, None)));
    }
    // Requests whose event is not committed cause no SubjectAccessReview.
    sequence.committed().await;
    let facts = record.facts();
    let request = RequestAttributes::new(&facts.info, facts.target.query());
    let impersonated =
        match proxy.impersonation_authorizer.authorize(&caller.user, impersonation, &request).await
        {
            Ok(impersonated) => impersonated,
            Err(refusal) => {
                if let Refusal::Denied(denial) = refusal {
                    record.access_denied(denial.message(Access::SubjectAccessReview));
                }
                return Err(refusal.into());
            }
        };
    let user = impersonated.user.clone();
    record.impersonation_allowed(impersonated);
    Ok(Some(user))
}
