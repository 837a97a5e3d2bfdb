//! Reports the state of the process to systemd, like `sd_notify(3)`, for `Type=notify` services.
//!
//! The service manager passes the address of a datagram socket in `NOTIFY_SOCKET`. Without it,
//! nothing is sent.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends assignments, such as `READY=1`, to the service manager.
///
/// A failure is logged, since the service manager then stops the process when its timeout ends.
pub(super) fn notify(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
    else {
        return;
    };
    if let Err(error) = send(&address, state) {
        tracing::warn!(
            socket = %address.display(), state, %error, "cannot notify the service manager"
        );
    }
}

fn send(address: &OsStr, state: &str) -> io::Result<()> {
    let address = match address.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(address)?,
        _ => {
            let message = "NOTIFY_SOCKET must be an absolute path, or an abstract name after @";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not delay requests or the shutdown.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
