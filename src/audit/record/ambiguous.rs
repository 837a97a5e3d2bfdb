//! Requests that are refused because the meaning of their body is ambiguous.

use super::AuditContext;
use super::annotations::AMBIGUOUS;
use audit_body::Reservation;
use audit_body::decode::Ambiguities;

impl AuditContext {
    /// Returns whether a recorded body must be buffered until it is complete and decoded, because
    /// an ambiguous one is refused.
    pub fn refuses_ambiguous(&self) -> bool {
        self.recorder.refuses_ambiguous()
    }

    /// Returns an empty reservation of memory for a buffered body.
    pub fn reservation(&self) -> Reservation {
        self.recorder.sinks()[0].bodies.budget.reservation(self.account())
    }

    /// Records that the request is refused because its body is ambiguous; the body is recorded as
    /// received.
    pub fn refused_for(&mut self, ambiguities: Ambiguities) {
        for view in self.views.iter_mut() {
            view.refuse_request(&self.recorder.metrics.bodies);
        }
        self.annotate(AMBIGUOUS, &ambiguities.names());
        self.recorder.metrics.bodies.ambiguous_rejected.inc();
    }
}
