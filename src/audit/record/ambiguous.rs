//! Requests that are refused since the meaning of their body is ambiguous.

use super::{AMBIGUOUS, Record};
use audit_body::Reservation;
use audit_body::decode::Ambiguities;

impl Record {
    /// Whether a recorded body is to be held until it is complete and has been decoded, since it is
    /// refused if its meaning is ambiguous.
    pub fn refuses_ambiguous(&self) -> bool {
        self.recorder.refuses_ambiguous()
    }

    /// Returns the memory that a held body may occupy, nothing yet.
    pub fn reservation(&self) -> Reservation {
        self.recorder.sinks()[0].bodies.budget.reservation(self.account())
    }

    /// Refuses the request since its body is ambiguous: the body is recorded as it came.
    pub fn refused_for(&mut self, ambiguities: Ambiguities) {
        for view in self.views.iter_mut() {
            view.refuse_request(&self.recorder.metrics.bodies);
        }
        self.annotate(AMBIGUOUS, &ambiguities.names());
        self.recorder.metrics.bodies.ambiguous_rejected.inc();
    }
}
