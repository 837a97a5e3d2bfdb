//! The memory for all bodies that are being recorded (`--audit-total-body-bytes`), and how it is
//! shared.
//!
//! Each body may always use [`RESERVED`] bytes, which are not counted, so that small bodies and the
//! names in them are always recorded. The rest is shared by dynamic thresholds: a user may use as
//! much as is still free for everyone, and one connection of that user as much as the user could
//! still take. A single user thus gets up to half of the memory (with a single connection a third),
//! and the other half remains for the next user, however many requests there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_audit::User;

/// Above the reserved minimum, memory is taken in steps of this many bytes, so that small pieces do
/// not contend for the lock.
const STEP: usize = 32 << 10;

/// The memory that each body may use without a reservation. A body is in memory twice, so this
/// suffices for 64 KiB.
pub(crate) const RESERVED: usize = 128 << 10;

/// A limit on the memory of all bodies.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    taken: Mutex<Taken>,
}

/// The memory in use beyond the reserved minimum. Users and connections without any are absent.
#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    by_user: HashMap<Box<str>, usize>,
    by_connection: HashMap<u64, usize>,
}

/// The user and the connection that use memory.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The authenticated user; all requests without one share an account.
    pub user: Option<Arc<User>>,
    /// The number of the client's connection.
    pub connection: u64,
}

impl Account {
    /// Returns the name that identifies the user.
    pub fn user_name(&self) -> &str {
        self.user.as_deref().map_or("", |user| &user.username)
    }
}

/// A part of a [`Budget`], returned when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    account: Account,
    held: usize,
}

impl Budget {
    /// Creates a budget of `total` bytes.
    pub fn new(total: usize) -> Arc<Budget> {
        Arc::new(Budget { total, taken: Mutex::default() })
    }

    /// Creates an empty reservation.
    pub fn reservation(self: &Arc<Budget>, account: Account) -> Reservation {
        Reservation { budget: self.clone(), account, held: 0 }
    }

    /// Returns the number of bytes in use beyond the reserved minimum of each body.
    pub fn taken(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // No code that changes the numbers can panic in between.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn take(&mut self, account: &Account, more: usize, total: usize) -> bool {
        let (user, connection) = (account.user_name(), account.connection);
        let of_user = self.by_user.get(user).copied().unwrap_or(0);
        let of_connection = self.by_connection.get(&connection).copied().unwrap_or(0);
        let free = total.saturating_sub(self.bytes.saturating_add(more));
        let left_to_user = free.checked_sub(of_user + more);
        if left_to_user.is_none_or(|left| of_connection + more > left) {
            return false;
        }
        self.bytes += more;
        match self.by_user.get_mut(user) {
            Some(of_user) => *of_user += more,
            None => _ = self.by_user.insert(user.into(), more),
        }
        *self.by_connection.entry(connection).or_default() += more;
        true
    }

    fn give_back(&mut self, account: &Account, bytes: usize) {
        let (user, connection) = (account.user_name(), account.connection);
        self.bytes -= bytes;
        if let Some(of_user) = self.by_user.get_mut(user) {
            *of_user -= bytes;
            if *of_user == 0 {
                self.by_user.remove(user);
            }
        }
        if let Some(of_connection) = self.by_connection.get_mut(&connection) {
            *of_connection -= bytes;
            if *of_connection == 0 {
                self.by_connection.remove(&connection);
            }
        }
    }
}

impl Reservation {
    /// Extends this reservation to at least `bytes`. Returns `false` and leaves it unchanged if the
    /// budget does not allow that.
    pub fn hold(&mut self, bytes: usize) -> bool {
        if bytes <= RESERVED.max(self.held) {
            return true;
        }
        let wanted = bytes.div_ceil(STEP) * STEP;
        let more = wanted - self.held.max(RESERVED);
        let allowed = self.budget.lock().take(&self.account, more, self.budget.total);
        if allowed {
            self.held = wanted;
        }
        allowed
    }

    /// Takes the reservation, leaving an empty one.
    pub fn take(&mut self) -> Reservation {
        let empty = self.budget.reservation(Account::default());
        std::mem::replace(self, empty)
    }

    /// Returns the number of reserved bytes.
    pub fn held(&self) -> usize {
        self.held.max(RESERVED)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let taken = self.held.saturating_sub(RESERVED);
        if taken > 0 {
            self.budget.lock().give_back(&self.account, taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_audit::UserInfo;

    const MIB: usize = 1 << 20;

    fn account(user: &str, connection: u64) -> Account {
        let user = UserInfo { username: user.into(), ..UserInfo::default() };
        Account { user: Some(Arc::new(user.into())), connection }
    }

    /// Takes pieces of 1 MiB, as for a new body, until none is left.
    fn exhaust(budget: &Arc<Budget>, account: &Account) -> Reservation {
        let mut reservation = budget.reservation(account.clone());
        while reservation.hold(reservation.held() + MIB) {}
        reservation
    }

    #[test]
    fn what_is_held_is_given_back() {
        let budget = Budget::new(16 * MIB);
        let (mut first, mut second) =
            (budget.reservation(account("a", 1)), budget.reservation(account("a", 1)));
        assert!(first.hold(1) && first.hold(RESERVED) && second.hold(RESERVED));
        assert_eq!(budget.taken(), 0, "the reserved minimum costs nothing");
        assert!(first.hold(RESERVED + 1) && second.hold(RESERVED + MIB));
        assert_eq!(budget.taken(), STEP + MIB);
        assert!(!first.hold(16 * MIB) && first.hold(RESERVED + STEP), "what is held stays");
        drop((first, second));
        let taken = budget.lock();
        assert_eq!((taken.bytes, taken.by_user.len(), taken.by_connection.len()), (0, 0, 0));
    }

    #[test]
    fn one_user_leaves_half_to_others_and_one_connection_leaves_some_to_the_user() {
        let budget = Budget::new(60 * MIB);
        let first = exhaust(&budget, &account("hostile", 1));
        assert_eq!(first.held() - RESERVED, 20 * MIB, "one connection gets a third");
        let more: Vec<_> =
            (2..100).map(|connection| exhaust(&budget, &account("hostile", connection))).collect();
        let hostile = budget.taken();
        assert!(hostile <= 30 * MIB && hostile > 25 * MIB, "{hostile}");
        let other = exhaust(&budget, &account("other", 100));
        assert!(other.held() >= 10 * MIB, "{}", other.held());
        let third = exhaust(&budget, &account("third", 101));
        assert!(third.held() >= 5 * MIB, "{}", third.held());
        drop((first, more, other, third));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn small_bodies_always_fit() {
        let budget = Budget::new(0);
        let mut reservations: Vec<_> =
            (0..1000).map(|connection| budget.reservation(account("a", connection))).collect();
        assert!(reservations.iter_mut().all(|small| small.hold(RESERVED)));
        assert!(!reservations[0].hold(RESERVED + 1));
    }
}
