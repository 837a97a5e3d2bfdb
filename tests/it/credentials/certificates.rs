//! Rows of the table for client certificates.

use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, SerialNumber};

use super::table::{Shown, Table};
use crate::support::pki::{self, Authority, Identity};
use crate::support::proxy::Proxy;

/// The serial number that the root CA has revoked.
pub const REVOKED: u64 = 666;
const UID: [u64; 7] = [1, 3, 6, 1, 4, 1, 57683];

/// `CN=` and `O=`.
fn named(cn: &'static str, o: Option<&'static str>) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        if let Some(o) = o {
            params.distinguished_name.push(DnType::OrganizationName, o);
        }
        params.distinguished_name.push(DnType::CommonName, cn);
    }
}

fn uid(value: &str) -> impl FnOnce(&mut CertificateParams) {
    let value = value.to_owned();
    move |params| {
        named("with-uid", None)(params);
        let oid = [&UID[..], &[2]].concat();
        params.distinguished_name.push(DnType::CustomDnType(oid), value);
    }
}

/// Runs all rows. `strict` rejects X.509 version 1, `lenient` accepts it, and `plain` accepts no
/// front proxies.
pub async fn rows(
    table: &mut Table,
    strict: &Proxy,
    lenient: &Proxy,
    plain: &Proxy,
    root: &Authority,
) {
    let middle = root.below("middle");
    let lower = middle.below("lower");
    let namesake = Authority::root("test-root");
    let with = |name, change: &dyn Fn(&mut CertificateParams)| {
        root.client(|params| {
            named(name, None)(params);
            change(params);
        })
    };
    let usages = |usages: &[ExtendedKeyUsagePurpose]| {
        let usages = usages.to_vec();
        with("usage", &move |params| params.extended_key_usages = usages.clone())
    };
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    let early = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    };
    let critical = |params: &mut CertificateParams| {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    };
    let huge = |params: &mut CertificateParams| {
        let content = [&[4, 0x82, 0x75, 0x30][..], &[0; 30_000]].concat();
        let extension = CustomExtension::from_oid_content(&[1, 2, 3, 5], content);
        params.custom_extensions.push(extension);
    };
    let number = |serial: u64| {
        move |params: &mut CertificateParams| {
            params.serial_number = Some(SerialNumber::from(serial));
        }
    };
    let deep = || lower.client(named("deep", Some("ops")));
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    const OWN: &str = "~credential-id=X509SHA256=own";
    let own = |user: &str| format!("{user} {OWN}");
    let cases: Vec<(&str, Identity, String)> = vec![
        ("CN and O", root.client(named("jane", Some("My Org"))), own("jane [My Org,+]")),
        ("CN alone", root.client(named("jane", None)), own("jane [+]")),
        (
            "O is system:masters",
            root.client(named("root", Some("system:masters"))),
            own("root [system:masters,+]"),
        ),
        ("CN in Unicode", root.client(named("жанна", None)), own("жанна [+]")),
        ("UID attribute", root.client(uid("u-1")), own("with-uid uid=u-1 [+]")),
        ("empty UID attribute", root.client(uid("")), "401".into()),
        ("chain of three", deep().with(&[&lower, &middle]), own("deep [ops,+]")),
        ("chain in another order", deep().with(&[&middle, &lower]), own("deep [ops,+]")),
        (
            "chain with a stranger in it",
            deep().with(&[&namesake, &lower, &middle]),
            own("deep [ops,+]"),
        ),
        ("chain without its middle", deep().with(&[&lower]), "401".into()),
        ("chain without all", deep(), "401".into()),
        ("expired", with("late", &expired), "401".into()),
        ("not yet valid", with("early", &early), "401".into()),
        ("usage: client", usages(&[ClientAuth]), own("usage [+]")),
        ("usage: client and server", usages(&[ServerAuth, ClientAuth]), own("usage [+]")),
        ("usage: none said", usages(&[]), own("usage [+]")),
        ("usage: any", usages(&[Any]), own("usage [+]")),
        ("usage: server", usages(&[ServerAuth]), "401".into()),
        ("usage: code signing", usages(&[CodeSigning]), "401".into()),
        ("unknown critical extension", with("critical", &critical), "401".into()),
        ("30 kB long", with("huge", &huge), own("huge [+]")),
        ("revoked", with("gone", &number(REVOKED)), "401".into()),
        ("not revoked", with("here", &number(REVOKED + 1)), own("here [+]")),
        ("authority of the same name", namesake.client(named("jane", None)), "401".into()),
        ("signed by itself", pki::self_signed("jane"), "401".into()),
    ];
    for (what, identity, expected) in &cases {
        let name = ("certificate", *what);
        table.row(strict, name, Shown::Made(identity), &[], expected).await;
    }
    // The certificate has no user; if front proxies are accepted, it is also an invalid front-proxy
    // certificate.
    let anonymous = "system:anonymous [system:unauthenticated]";
    for (what, identity) in
        [("no CN", root.client(|_| {})), ("empty CN", root.client(named("", Some("ops"))))]
    {
        let shown = Shown::Made(&identity);
        table.row(plain, ("certificate", what), shown, &[], anonymous).await;
        let what = format!("{what}, with trusted front proxies");
        table.row(strict, ("certificate", &what), shown, &[], "401").await;
    }
    let v1 = |change: &dyn Fn(&mut CertificateParams)| with("old-timer", change).into_v1(root);
    let taken = own("old-timer [+]");
    let cases = [
        ("version 1, not allowed", strict, v1(&|_| {}), "401"),
        ("version 1, allowed", lenient, v1(&|_| {}), &taken),
        ("version 1, allowed, expired", lenient, v1(&expired), "401"),
        ("version 1, allowed, revoked", lenient, v1(&number(REVOKED)), "401"),
        (
            "version 1, allowed, signed by another",
            lenient,
            with("x", &|_| {}).into_v1(&namesake),
            "401",
        ),
        (
            "version 1, below an intermediate",
            lenient,
            deep().into_v1(&lower).with(&[&lower, &middle]),
            "401",
        ),
    ];
    for (what, proxy, identity, expected) in &cases {
        let name = ("certificate", *what);
        table.row(proxy, name, Shown::Made(identity), &[], expected).await;
    }
    let alice = own("alice [dev,team-a,+]");
    let carol = "carol uid=uid-carol [dev,team-b,+]";
    let (good, bad) = ("Authorization: Bearer carol-token", "Authorization: Bearer nonsense");
    for (what, who, headers, expected) in [
        ("several O", "alice", &[][..], alice.as_str()),
        ("before a good token", "alice", &[good], &alice),
        ("before a bad token", "alice", &[bad], &alice),
        ("rogue authority", "rogue", &[], "401"),
        ("rogue authority, and a good token", "rogue", &[good], carol),
        ("rogue authority, and a bad token", "rogue", &[bad], "401"),
    ] {
        table.row(strict, ("certificate", what), Shown::Corpus(who), headers, expected).await;
    }
}
