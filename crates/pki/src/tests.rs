use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints,
};
use rustls_pki_types::{CertificateDer, ServerName};

use super::verify::check_server_name;
use super::*;

/// 2026-01-01
const NOW: i64 = 1_767_225_600;

struct Made {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn make(parent: Option<&Made>, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match parent {
        Some(parent) => params.signed_by(&key, &parent.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let der = certificate.der().clone();
    Made { issuer: Issuer::new(params, key), der }
}

fn ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

fn names(all: &[&str]) -> impl FnOnce(&mut CertificateParams) {
    let all: Vec<String> = all.iter().map(|name| (*name).to_owned()).collect();
    move |params| params.subject_alt_names = CertificateParams::new(all).unwrap().subject_alt_names
}

fn extension(params: &mut CertificateParams, oid: &[u64], critical: bool, value: &[u8]) {
    let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
    extension.set_criticality(critical);
    params.custom_extensions.push(extension);
}

/// What is wrong with the first of `chain`, if `roots` are trusted. Empty for nothing.
fn verify(roots: &[&Made], chain: &[&Made], usage: Usage) -> String {
    let mut trusted = Roots::new("ca.crt");
    roots.iter().for_each(|root| trusted.add(root.der.clone()).unwrap());
    let chain: Vec<_> = chain.iter().map(|made| made.der.clone()).collect();
    let verification =
        Verification { roots: &trusted, revoked: &[], usage, allow_v1: false, now: NOW };
    let leaf = Certificate::parse(&chain[0]).unwrap();
    match verification.verify(&leaf, &readable(&chain[1..])) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

fn client(roots: &[&Made], chain: &[&Made]) -> String {
    verify(roots, chain, Usage::Client)
}

#[test]
fn ca_certificates_are_accepted_as_end_entities() {
    // `openssl req -x509`: signed by itself, CA:TRUE, without key usage.
    let alone = make(None, "alone", ca);
    assert_eq!(client(&[&alone], &[&alone]), "");
    assert_eq!(verify(&[&alone], &[&alone], Usage::Server), "");
    let root = make(None, "root", ca);
    let below = make(Some(&root), "below", ca);
    assert_eq!(client(&[&root], &[&below]), "");
    assert_eq!(client(&[&below], &[&below]), "", "trusted itself, though its issuer is not");
    let refused = client(&[&root], &[&alone]);
    assert_eq!(
        refused,
        "certificate \"CN=alone\" was issued by \"CN=alone\", which does not lead to a CA in ca.crt; \
         add that CA's certificate there, and intermediate certificates to the chain that the peer \
         presents"
    );
    let namesake = make(None, "root", ca);
    let refused = client(&[&namesake], &[&below]);
    assert!(refused.contains("\"CN=below\" is not signed by the key of \"CN=root\""), "{refused}");
    let plain = make(None, "plain", |_| {});
    assert_eq!(client(&[&plain], &[&plain]), "");
    assert!(!client(&[&root], &[&plain]).is_empty());
    // Its own key signed it, but it is another certificate than the trusted one.
    let twin = make(Some(&alone), "alone", ca);
    assert_eq!(client(&[&alone], &[&twin]), "");
}

#[test]
fn time_and_usage_are_checked_of_all_certificates() {
    let root = make(None, "root", ca);
    let old = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    let expired = make(Some(&root), "x", old);
    assert_eq!(
        client(&[&root], &[&expired]),
        "certificate \"CN=x\" expired at 2021-02-03T00:00:00Z, and it is 2026-01-01T00:00:00Z; renew \
         it, or check the clock of this machine"
    );
    let early = make(Some(&root), "x", |p| p.not_before = rcgen::date_time_ymd(2030, 1, 1));
    assert!(client(&[&root], &[&early]).contains("is not valid before 2030-01-01T00:00:00Z"));
    let both = |params: &mut CertificateParams| {
        ca(params);
        old(params);
    };
    let (old_root, old_middle) = (make(None, "old", both), make(Some(&root), "middle", both));
    let leaf = make(Some(&old_middle), "leaf", |_| {});
    let refused = client(&[&root], &[&leaf, &old_middle]);
    assert!(refused.starts_with("certificate \"CN=middle\" expired"), "{refused}");
    let refused = client(&[&old_root], &[&make(Some(&old_root), "leaf", |_| {})]);
    assert!(refused.starts_with("certificate \"CN=old\" expired"), "{refused}");

    let for_servers = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let server = make(Some(&root), "server", for_servers);
    assert_eq!(verify(&[&root], &[&server], Usage::Server), "");
    assert!(client(&[&root], &[&server]).contains("is not for TLS clients (clientAuth)"));
    let middle = make(Some(&root), "middle", |params| {
        ca(params);
        for_servers(params);
    });
    let leaf = make(Some(&middle), "leaf", |_| {});
    assert_eq!(verify(&[&root], &[&leaf, &middle], Usage::Server), "");
    assert!(
        client(&[&root], &[&leaf, &middle]).starts_with("certificate \"CN=middle\" is not for")
    );
    let any = make(Some(&root), "any", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    });
    assert_eq!(client(&[&root], &[&any]), "");
}

#[test]
fn only_authorities_sign_and_only_as_deep_as_they_may() {
    let root = make(None, "root", ca);
    let plain = make(Some(&root), "plain", |_| {});
    let forged = make(Some(&plain), "forged", |_| {});
    let refused = client(&[&root], &[&forged, &plain]);
    assert!(refused.starts_with("certificate \"CN=plain\" signed \"CN=forged\" but is not a CA"));
    assert!(!client(&[&plain], &[&forged]).is_empty(), "a trusted certificate that is no CA");
    let wrong_usage = make(Some(&root), "usage", |params| {
        ca(params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let leaf = make(Some(&wrong_usage), "leaf", |_| {});
    assert!(client(&[&root], &[&leaf, &wrong_usage]).contains("keyCertSign"));

    let limited = make(None, "limited", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    assert_eq!(client(&[&limited], &[&make(Some(&limited), "leaf", |_| {})]), "");
    assert_eq!(client(&[&limited], &[&make(Some(&limited), "leaf", ca)]), "");
    let middle = make(Some(&limited), "middle", ca);
    let leaf = make(Some(&middle), "leaf", |_| {});
    let refused = client(&[&limited], &[&leaf, &middle]);
    assert!(refused.contains("\"CN=limited\" allows 0 CA certificates below it"), "{refused}");
}

#[test]
fn name_constraints_hold_for_all_names_below() {
    let constrained = |name: GeneralSubtree| {
        make(None, "root", move |params: &mut CertificateParams| {
            ca(params);
            let (permitted_subtrees, excluded_subtrees) = (vec![name], Vec::new());
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees, excluded_subtrees });
        })
    };
    let root = constrained(GeneralSubtree::DnsName("example.com".into()));
    for (name, good) in [("a.example.com", true), ("example.org", false), ("10.0.0.1", true)] {
        for change in [true, false] {
            let leaf = make(Some(&root), "leaf", |params| {
                names(&[name])(params);
                if change {
                    ca(params);
                }
            });
            let refused = client(&[&root], &[&leaf]);
            assert_eq!(refused.is_empty(), good, "{name}: {refused}");
        }
    }
    let middle = make(Some(&root), "middle", ca);
    let leaf = make(Some(&middle), "leaf", names(&["example.org"]));
    let refused = client(&[&root], &[&leaf, &middle]);
    assert!(
        refused.contains("does not permit the name \"example.org\" of \"CN=leaf\""),
        "{refused}"
    );
    let root = constrained(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, 0, 0, 0], 8)));
    assert_eq!(client(&[&root], &[&make(Some(&root), "x", names(&["10.9.8.7"]))]), "");
    assert!(!client(&[&root], &[&make(Some(&root), "x", names(&["11.9.8.7"]))]).is_empty());
    let mut own = DistinguishedName::new();
    own.push(DnType::OrganizationName, "dev");
    let root = constrained(GeneralSubtree::DirectoryName(own));
    assert!(!client(&[&root], &[&make(Some(&root), "x", |_| {})]).is_empty());
    let below = make(Some(&root), "x", |params| {
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "dev");
        name.push(DnType::CommonName, "x");
        params.distinguished_name = name;
    });
    assert_eq!(client(&[&root], &[&below]), "");
}

#[test]
fn critical_policies_are_accepted_and_unknown_critical_extensions_are_not() {
    let policies = &[0x30, 6, 0x30, 4, 0x06, 2, 0x2a, 3];
    let other = &[0x30, 6, 0x30, 4, 0x06, 2, 0x2a, 4];
    let require = &[0x30, 3, 0x80, 1, 0];
    let authority = |critical| {
        move |params: &mut CertificateParams| {
            ca(params);
            extension(params, &[2, 5, 29, 32], critical, policies);
            extension(params, &[2, 5, 29, 36], critical, require);
            extension(params, &[2, 5, 29, 54], critical, &[2, 1, 0]);
        }
    };
    for critical in [true, false] {
        let root = make(None, "root", authority(critical));
        let middle = make(Some(&root), "middle", authority(critical));
        let good = make(Some(&middle), "leaf", |p| {
            extension(p, &[2, 5, 29, 32], critical, policies);
        });
        assert_eq!(client(&[&root], &[&good, &middle]), "");
        let bad = make(Some(&middle), "leaf", |p| {
            extension(p, &[2, 5, 29, 32], critical, other);
        });
        let refused = client(&[&root], &[&bad, &middle]);
        assert!(refused.contains("no certificate policy that is valid"), "{refused}");
        let none = make(Some(&middle), "leaf", |_| {});
        assert!(!client(&[&root], &[&none, &middle]).is_empty());
    }
    let unknown = |params: &mut CertificateParams| {
        ca(params);
        extension(params, &[1, 2, 3, 4], true, &[5, 0]);
    };
    let root = make(None, "root", ca);
    let leaf = make(Some(&root), "leaf", unknown);
    let refused = client(&[&root], &[&leaf]);
    assert!(refused.contains("has the critical extension 1.2.3.4"), "{refused}");
    assert!(client(&[&leaf], &[&leaf]).contains("1.2.3.4"), "also where it is trusted itself");
    let middle = make(Some(&root), "middle", unknown);
    let leaf = make(Some(&middle), "leaf", |_| {});
    assert!(client(&[&root], &[&leaf, &middle]).contains("1.2.3.4"));
    let root = make(None, "root", unknown);
    assert!(client(&[&root], &[&make(Some(&root), "leaf", |_| {})]).contains("1.2.3.4"));
}

#[test]
fn servers_are_known_by_subject_alternative_names_only() {
    let root = make(None, "root", ca);
    let check = |made: &Made, name: &str| {
        let parsed = Certificate::parse(&made.der).unwrap();
        match check_server_name(&parsed, &ServerName::try_from(name).unwrap()) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let server =
        make(Some(&root), "api", names(&["api.example", "*.pods.example", "10.0.0.1", "::1"]));
    for name in ["api.example", "x.pods.example", "10.0.0.1", "::1"] {
        assert_eq!(check(&server, name), "");
    }
    assert_eq!(
        check(&server, "10.0.0.2"),
        "certificate \"CN=api\" is not for \"10.0.0.2\" but for api.example, *.pods.example, \
         10.0.0.1, ::1; connect with one of these names, or set one with tls-server-name \
         (--upstream-tls-server-name)"
    );
    let bare = make(Some(&root), "localhost", |_| {});
    assert!(check(&bare, "localhost").contains("it has no subjectAltName"));
}

#[test]
fn a_search_among_many_namesakes_ends() {
    let root = make(None, "root", ca);
    let mut loops: Vec<Made> = Vec::new();
    for _ in 0..12 {
        let next = make(loops.last(), "loop", ca);
        loops.push(next);
    }
    let leaf = make(loops.last(), "leaf", |_| {});
    let mut chain: Vec<&Made> = vec![&leaf];
    chain.extend(&loops);
    assert!(!client(&[&root], &chain).is_empty());
}

#[test]
fn truncated_and_changed_certificates_never_panic_nor_pass() {
    let root = make(None, "root", ca);
    let leaf = make(Some(&root), "leaf", names(&["localhost"]));
    let mut trusted = Roots::new("ca.crt");
    trusted.add(root.der.clone()).unwrap();
    let verification = Verification {
        roots: &trusted,
        revoked: &[],
        usage: Usage::Client,
        allow_v1: true,
        now: NOW,
    };
    let passes = |der: &[u8]| {
        Certificate::parse(der).is_ok_and(|parsed| verification.verify(&parsed, &[]).is_ok())
    };
    assert!(passes(&leaf.der));
    for end in 0..leaf.der.len() {
        assert!(!passes(&leaf.der[..end]));
    }
    let mut longer = leaf.der.to_vec();
    longer.push(0);
    assert!(!passes(&longer));
    for at in 0..leaf.der.len() {
        for bit in 0..8 {
            let mut changed = leaf.der.to_vec();
            changed[at] ^= 1 << bit;
            assert!(!passes(&changed), "bit {bit} of byte {at}");
        }
    }
}
