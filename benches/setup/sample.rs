//! A typical request and its record.

use std::net::IpAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use k8s_audit::event::{Event, ObjectRef, UserAgent};
use k8s_audit::request::RequestInfo;
use k8s_audit::status::Status;
use k8s_audit::timestamp::Timestamp;
use kube_audit_proxy::audit::record::{AuditContext, AuditPipeline, RequestContext};
use kube_audit_proxy::policy::{Level, Stage};
use kube_authn::User;

use crate::user::user;

const TARGET: &str =
    "/apis/apps/v1/namespaces/shop/deployments/web?fieldManager=kubectl&fieldValidation=Strict";
const AUDIT_ID: &str = "0d4e1f6a-2f0c-4a8e-9f0e-6b1f5a0c7d11";

/// The properties of the request.
pub struct Sample {
    target: PathAndQuery,
    info: RequestInfo,
    user: Arc<User>,
    source_ips: [IpAddr; 1],
    user_agent: UserAgent,
    status: Status,
}

impl Sample {
    pub fn new() -> Sample {
        let target = PathAndQuery::from_static(TARGET);
        let agent = HeaderValue::from_static("kubectl/v1.36.2 (linux/amd64) kubernetes/abcdef0");
        Sample {
            info: RequestInfo::new(&Method::PATCH, &target).expect("a resource"),
            target,
            user: Arc::new(user().into()),
            source_ips: [[203, 0, 113, 7].into()],
            user_agent: UserAgent::new(Some(&agent)),
            status: Status { code: 200, ..Status::default() },
        }
    }

    /// Returns its last event.
    pub fn event(&self) -> Event<'_> {
        Event {
            level: Level::Metadata,
            audit_id: AUDIT_ID.as_bytes(),
            stage: Stage::ResponseComplete,
            request_uri: self.target.as_str(),
            verb: self.info.verb(),
            user: Some(&self.user),
            impersonated_user: None,
            impersonation_constraint: None,
            source_ips: &self.source_ips,
            user_agent: &self.user_agent,
            object_ref: Some(ObjectRef { info: &self.info, metadata: None }),
            response_status: Some(&self.status),
            request_object: None,
            response_object: None,
            request_received: Timestamp::now(),
            stage_timestamp: Timestamp::now(),
            annotations: &[],
        }
    }

    /// Creates its record with both events, if the policies of `recorder` include them.
    pub fn record(&self, recorder: &Arc<AuditPipeline>) {
        let facts = RequestContext {
            accept: None,
            received: Timestamp::now(),
            audit_id: HeaderValue::from_static(AUDIT_ID),
            info: RequestInfo::new(&Method::PATCH, &self.target).expect("a resource"),
            target: self.target.clone(),
            source_ips: self.source_ips.to_vec(),
            user_agent: self.user_agent.clone(),
        };
        let mut record = AuditContext::begin(recorder.clone(), facts, Some(self.user.clone()));
        drop(record.received());
        record.answered(200, None);
        drop(record.complete());
    }
}
