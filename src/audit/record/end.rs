//! The end of a record: conversion of bodies, on this or another thread, and the last event.

use super::AuditContext;
use crate::audit::panic_message;
use crate::audit::view::{EventVariant, OneOrMore};
use crate::policy::Stage;
use audit_log::Commit;
use k8s_audit::status::Status;
use k8s_audit::timestamp::Timestamp;

impl AuditContext {
    /// Converts the bodies, and compares the names in the request and the response.
    pub(super) fn digest(&mut self) {
        self.read_request();
        if let Some((captures, all)) = self.response.take() {
            self.read_response(captures, all);
        }
        self.check_name();
    }

    pub(super) fn end(&mut self) -> Commit {
        let stage = self.settle();
        // The outcome is known now. The API server may have processed what a disconnected client
        // sent.
        self.digest();
        if stage == Stage::ResponseComplete {
            self.apply_extensions();
        }
        let now = Timestamp::now();
        let commit = self.emit(stage, now);
        self.count_end(now);
        commit
    }

    /// Determines the last stage and the outcome, unless they are set.
    fn settle(&mut self) -> Stage {
        let is_panic = std::thread::panicking();
        let stage = if is_panic { Stage::Panic } else { Stage::ResponseComplete };
        let stage = if is_panic { stage } else { self.last.unwrap_or(stage) };
        match stage {
            Stage::Panic if is_panic => self.status = Some(panic_status()),
            _ if self.status.is_none() => self.status = Some(Status::client_gone()),
            _ => {}
        }
        self.last = Some(stage);
        self.annotate_authorization();
        stage
    }

    /// Returns whether ending the record takes longer than a worker thread should be blocked. Must
    /// be called when the response is known.
    pub fn is_heavy(&mut self) -> bool {
        let status = self.hidden.as_ref().or(self.status.as_ref());
        let request =
            status.is_some_and(|status| self.views.iter().any(|view| view.is_heavy(status)));
        request || self.response.as_mut().is_some_and(|(captures, _)| captures.is_heavy())
    }

    /// Converts the bodies on another thread, if [`AuditContext::is_heavy`]. If the future is
    /// dropped, the record ends there. Returns `None` if the conversion panicked, and the record
    /// has ended.
    pub fn digested(
        self: Box<Self>,
    ) -> impl Future<Output = Option<Box<AuditContext>>> + Send + use<> {
        let (recorder, user) = (self.recorder.clone(), self.user.clone());
        let user = user.as_ref().map_or("", |user| &user.username);
        let mut record = self;
        let digested = recorder.converter().run(user, move || {
            record.digest();
            record
        });
        async move { digested.await.ok() }
    }

    /// Returns whether responses wait for events.
    pub fn is_awaited(&self) -> bool {
        self.recorder.sinks().iter().any(|sink| sink.backend.is_awaited())
    }

    /// Ends the record after the client has disconnected, when no response waits for its last
    /// event.
    pub fn abandon(mut self: Box<Self>) {
        self.settle();
        match self.is_heavy() {
            true => drop(self.digested()),
            false => drop(self.end()),
        }
    }

    /// Moves the remaining state into a separate record.
    fn take(&mut self) -> Box<AuditContext> {
        self.ended = true;
        let none = EventVariant::none();
        Box::new(AuditContext {
            recorder: self.recorder.clone(),
            facts: self.facts.clone(),
            user: self.user.clone(),
            views: std::mem::replace(&mut self.views, OneOrMore::one(none)),
            decided: self.decided.clone(),
            is_extended: self.is_extended,
            response_version: self.response_version.take(),
            long_running: self.long_running,
            impersonated: self.impersonated.take(),
            authorization: self.authorization.take(),
            metadata: self.metadata.take(),
            connection: self.connection,
            sequence: self.sequence.clone(),
            response: self.response.take(),
            created: self.created.take(),
            has_object: self.has_object,
            in_part: self.in_part,
            held: self.held.take(),
            last: self.last,
            status: self.status.take(),
            hidden: self.hidden.take(),
            ended: false,
        })
    }
}

impl Drop for AuditContext {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // No request waits for the event any more; the sink still writes it.
        self.settle();
        match self.is_heavy() {
            true => drop(self.take().digested()),
            false => drop(self.end()),
        }
    }
}

fn panic_status() -> Status {
    let message = panic_message::last();
    Status::internal_error(format!("APIServer panic'd: {message}"))
}
