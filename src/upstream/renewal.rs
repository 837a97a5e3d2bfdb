//! Requests that the API server rejected because the proxy's own credential has expired or was
//! revoked, while a credential plugin can return another one.

use http::header::AUTHORIZATION;
use http::{Request, Response};

use super::forward::{Head, Upstream};

/// How often one request is repeated with a renewed credential. The next one may expire, too,
/// before the request arrives.
const MAX_RENEWALS: u8 = 3;

/// Marks a request whose credential can be renewed, as an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Renewable {
    /// The credential, by which [`ExecCredentials`](api_client::exec::ExecCredentials) identifies
    /// it.
    pub generation: u64,
    /// A 401 may come from a server behind the API server: an aggregated API, a kubelet or a
    /// proxied service.
    pub may_be_relayed: bool,
    renewals: u8,
}

/// Marks a 401 of the API server after which the credential was renewed, but the request could not
/// be repeated because its body had been sent. An extension of the response.
#[derive(Debug, Clone, Copy)]
pub struct CredentialRenewed;

impl Renewable {
    /// Marks a request that carries the credential of `generation`.
    pub fn new(generation: u64, may_be_relayed: bool) -> Renewable {
        Renewable { generation, may_be_relayed, renewals: 0 }
    }

    pub(super) fn of<B>(request: &Request<B>) -> Option<Renewable> {
        request.extensions().get::<Renewable>().copied()
    }
}

impl Upstream {
    /// Renews the credential that was rejected by the 401 `response`. Returns whether to repeat the
    /// request, with the new credential in `head`. A 401 means that the request was not processed,
    /// so repeating it is safe whatever its method is; its body must still be there (`can_repeat`).
    pub(super) async fn renew<B>(
        &self,
        rejected: &mut Renewable,
        head: &mut Head,
        response: &mut Response<B>,
        can_repeat: bool,
    ) -> bool {
        let Some(plugin) = self.now().target().plugin().cloned() else { return false };
        if rejected.renewals == MAX_RENEWALS {
            return false;
        }
        rejected.renewals += 1;
        let is_front_proxy = head.headers.contains_key("x-remote-user");
        if rejected.may_be_relayed
            && !self.access().is_current_credential_rejected(is_front_proxy).await
        {
            return false;
        }
        match plugin.renewed(rejected.generation).await {
            Ok(own) => {
                rejected.generation = own.generation.unwrap_or_default();
                if !can_repeat {
                    response.extensions_mut().insert(CredentialRenewed);
                } else if let (Some(header), true) =
                    (own.header, head.headers.contains_key(AUTHORIZATION))
                {
                    head.headers.insert(AUTHORIZATION, header);
                }
                tracing::debug!(repeated = can_repeat, "the credential was rejected and renewed");
                can_repeat
            }
            Err(error) => {
                tracing::debug!(%error, "the credential was rejected and cannot be renewed");
                false
            }
        }
    }
}
