//! The message of a thread's last panic, for the `Panic` event of the request that it ended.

use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Installs a panic hook that stores and logs the message. Repeated calls do nothing.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let message = message(info);
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(at, "panic: {message}");
            LAST.with_borrow_mut(|last| *last = message);
        }));
    });
}

/// Returns the message of this thread's last panic; empty if there was none.
pub(crate) fn last() -> String {
    LAST.with_borrow(String::clone)
}

fn message(info: &PanicHookInfo<'_>) -> String {
    info.payload_as_str().unwrap_or("no message").to_owned()
}
