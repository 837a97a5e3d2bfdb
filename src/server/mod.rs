//! Listeners, TLS, HTTP/1.1 and HTTP/2, shutdown, and the admin port.
//!
//! [`listener`] accepts connections and assigns each to one of the [`workers`], where TLS is
//! terminated ([`tls`], [`certificates`]). [`http`] serves the protocol that ALPN selected and
//! calls a [`http::Handler`] for each request; [`linger`] closes the connection. All of them stop
//! in the phases of [`shutdown`]. [`admin`] is a second listener, without TLS, with the health of
//! the process and its metrics.

pub(crate) mod admin;
pub(crate) mod certificates;
pub mod http;
mod http1;
mod http1_io;
mod http2;
pub(crate) mod limits;
mod linger;
pub(crate) mod listener;
mod policy_page;
pub mod proxy_protocol;
pub(crate) mod self_signed;
pub mod shutdown;
pub(crate) mod tls;
pub(crate) mod workers;

#[cfg(test)]
mod test_support;
