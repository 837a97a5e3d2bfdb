//! systemd's readiness protocol: what the program sends to the socket in `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};

use tokio::net::UnixDatagram;

use crate::support::in_time;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};

async fn next(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = in_time("a notification", manager.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

async fn builder() -> (FakeUpstream, Builder) {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let builder = Builder::new(upstream.addr);
    (upstream, builder)
}

async fn reports_its_life(manager: &UnixDatagram, mut proxy: Proxy) {
    assert_eq!(next(manager).await, "READY=1");
    proxy.process.signal("HUP");
    assert_eq!(next(manager).await, "RELOADING=1");
    assert_eq!(next(manager).await, "READY=1");
    proxy.process.signal("TERM");
    assert_eq!(next(manager).await, "STOPPING=1");
    assert!(in_time("the end", proxy.process.wait()).await.success());
}

#[tokio::test]
async fn the_service_manager_is_notified_of_start_reload_and_end() {
    let (_upstream, builder) = builder().await;
    let path = builder.dir().path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let proxy = builder.env("NOTIFY_SOCKET", path.to_str().unwrap()).start().await;
    reports_its_life(&manager, proxy).await;
}

#[tokio::test]
async fn the_socket_may_have_an_abstract_name() {
    let (_upstream, builder) = builder().await;
    let name = format!("kube-audit-proxy-{}", std::process::id());
    let manager = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_nonblocking(true).unwrap();
    let manager = UnixDatagram::from_std(manager).unwrap();
    let proxy = builder.env("NOTIFY_SOCKET", &format!("@{name}")).start().await;
    reports_its_life(&manager, proxy).await;
}

#[tokio::test]
async fn an_unusable_socket_is_logged_and_the_proxy_serves() {
    for (socket, error) in [
        ("relative", "must be an absolute path"),
        ("/nonexistent/notify", "No such file or directory"),
    ] {
        let (_upstream, builder) = builder().await;
        let mut proxy = builder.env("NOTIFY_SOCKET", socket).start().await;
        let log = proxy.process.logs("cannot notify the service manager").await;
        assert!(log.contains(error), "{log}");
        assert!(proxy.stop().await.success());
    }
}
