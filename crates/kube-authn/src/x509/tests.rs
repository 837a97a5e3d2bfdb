use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};

use super::*;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

fn ca(parent: Option<&Ca>, name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let certificate = match parent {
        Some(parent) => params.signed_by(&key, &parent.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let (pem, der) = (certificate.pem(), certificate.der().clone());
    Ca { issuer: Issuer::new(params, key), pem, der }
}

fn leaf(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &ca.issuer).unwrap().der().clone()
}

fn named(cn: &str) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.distinguished_name.push(DnType::CommonName, cn)
}

fn client_ca(pem: &str) -> ClientCa {
    let file = temporary(pem);
    ClientCa::load(&file, None).unwrap()
}

fn temporary(content: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("kap-x509-{}-{count}.pem", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn is_revoked(verdict: Authenticated) -> bool {
    let Err(CertificateError::Chain(error)) = verdict else { return false };
    matches!(error.reason(), pki::Reason::Revoked { .. })
}

type Authenticated = Result<Option<Arc<User>>, CertificateError>;

fn user(trusted: &ClientCa, chain: Vec<CertificateDer<'static>>) -> Authenticated {
    ClientCertificates::new(chain).unwrap().user(trusted)
}

#[test]
fn a_good_certificate_names_its_user() {
    let root = ca(None, "root");
    let trusted = client_ca(&root.pem);
    let certificate = leaf(&root, |params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "My Org");
        name.push(DnType::CommonName, "client_cn");
        name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "uid-1");
    });
    let user = user(&trusted, vec![certificate.clone()]).unwrap().unwrap();
    assert_eq!((user.username.as_str(), user.uid.as_str()), ("client_cn", "uid-1"));
    assert_eq!(user.groups, ["My Org", "system:authenticated"]);
    let id = &user.extra["authentication.kubernetes.io/credential-id"][0];
    assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
}

#[test]
fn chain_usage_and_validity_are_verified() {
    let root = ca(None, "root");
    let middle = ca(Some(&root), "middle");
    let trusted = client_ca(&root.pem);
    let below = leaf(&middle, named("deep"));
    let names = |user: Authenticated| user.map(|user| user.map(|user| user.username.clone()));
    let deep = names(user(&trusted, vec![below.clone(), middle.der.clone()]));
    assert_eq!(deep, Ok(Some("deep".into())));
    assert_eq!(names(user(&trusted, vec![leaf(&root, |_| {})])), Ok(None), "no common name");
    assert_eq!(names(user(&trusted, vec![leaf(&root, named(""))])), Ok(None));
    let no_usage = leaf(&root, |params| {
        params.extended_key_usages.clear();
        named("any")(params);
    });
    assert_eq!(names(user(&trusted, vec![no_usage])), Ok(Some("any".into())));

    let any_usage = leaf(&root, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        named("any")(params);
    });
    assert_eq!(names(user(&trusted, vec![any_usage])), Ok(Some("any".into())));

    let server_only = leaf(&root, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        named("server")(params);
    });
    let expired = leaf(&root, |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        named("old")(params);
    });
    let early = leaf(&root, |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        named("early")(params);
    });
    let critical = leaf(&root, |params| {
        let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
        named("critical")(params);
    });
    let rogue = leaf(&ca(None, "root"), named("rogue"));
    for (what, certificate) in [
        ("intermediate missing", below),
        ("server only", server_only),
        ("expired", expired),
        ("not yet valid", early),
        ("unknown critical extension", critical),
        ("another root of the same name", rogue),
        ("no certificate at all", CertificateDer::from(vec![1, 2, 3])),
    ] {
        let verdict = user(&trusted, vec![certificate]);
        assert!(verdict.is_err(), "{what}: {verdict:?}");
    }
}

#[test]
fn uid_attributes_must_be_one_string() {
    let root = ca(None, "root");
    let trusted = client_ca(&root.pem);
    let certificate = leaf(&root, |params| {
        named("u")(params);
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "");
    });
    assert_eq!(user(&trusted, vec![certificate]), Err(CertificateError::Uid("empty")));
}

#[test]
fn a_changed_ca_file_reaches_open_connections() {
    let (first, second) = (ca(None, "first"), ca(None, "second"));
    let file = temporary(&first.pem);
    let trusted = ClientCa::load(&file, None).unwrap();
    let certificates = ClientCertificates::new(vec![leaf(&first, named("a"))]).unwrap();
    assert!(certificates.user(&trusted).is_ok());
    std::fs::write(&file, &second.pem).unwrap();
    trusted.reload().unwrap();
    assert!(certificates.user(&trusted).is_err());
    std::fs::write(&file, "nothing").unwrap();
    assert!(matches!(trusted.reload(), Err(ClientCaError::Empty { .. })));
    assert!(certificates.user(&trusted).is_err(), "the last valid file stays active");
    std::fs::write(&file, format!("{}{}", second.pem, first.pem)).unwrap();
    trusted.reload().unwrap();
    assert!(certificates.user(&trusted).is_ok());
}

/// Returns a revocation list of `ca` with these serial numbers, whose next update is overdue.
fn revocation_list(ca: &Ca, serials: &[u64]) -> String {
    test_support::revocation_list(&ca.issuer, serials, rcgen::date_time_ymd(2020, 2, 1))
}

#[test]
fn revoked_certificates_are_refused_also_on_open_connections() {
    let (root, silent) = (ca(None, "root"), ca(None, "silent"));
    let middle = {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "middle");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serial_number = Some(SerialNumber::from(9_u64));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &root.issuer).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ca { issuer: Issuer::new(params, key), pem, der }
    };
    let numbered = |ca: &Ca, serial: u64| {
        leaf(ca, |params| {
            params.serial_number = Some(SerialNumber::from(serial));
            named("user")(params);
        })
    };
    let certificates = |chain| ClientCertificates::new(chain).unwrap();
    let (good, bad) =
        (certificates(vec![numbered(&root, 1)]), certificates(vec![numbered(&root, 2)]));
    let below = certificates(vec![numbered(&middle, 1), middle.der.clone()]);
    let other = certificates(vec![numbered(&silent, 2)]);
    let anchors = temporary(&format!("{}{}", root.pem, silent.pem));
    let lists = temporary(&revocation_list(&root, &[]));
    let trusted = ClientCa::load(&anchors, Some(&lists)).unwrap();
    let all = [&good, &bad, &below, &other];
    let verdicts = || all.map(|certificates| certificates.user(&trusted).is_ok());
    assert_eq!(verdicts(), [true; 4]);
    std::fs::write(&lists, revocation_list(&root, &[2, 9])).unwrap();
    trusted.reload().unwrap();
    assert_eq!(verdicts(), [true, false, false, true], "an authority without a list revokes none");
    assert!(is_revoked(bad.user(&trusted)));
    // Without the key of a CA, write access to the file is not enough to revoke or reinstate a
    // certificate.
    std::fs::write(&lists, revocation_list(&ca(None, "root"), &[2])).unwrap();
    trusted.reload().unwrap();
    assert!(bad.user(&trusted).is_err());
    std::fs::write(&lists, "no list").unwrap();
    let error = trusted.reload().unwrap_err().to_string();
    assert!(
        error.contains("cannot read the certificate revocation lists: there is none"),
        "{error}"
    );
}

/// Returns a copy of the certificate `full` with version 1, signed by `signer`.
fn v1(full: &CertificateDer<'_>, signer: &Ca) -> CertificateDer<'static> {
    test_support::as_v1(full, signer.issuer.key())
}

#[test]
fn version_1_certificates_are_accepted_only_if_allowed() {
    let (root, namesake) = (ca(None, "root"), ca(None, "root"));
    let old = leaf(&root, named("old-timer"));
    let good = v1(&old, &root);
    let refused = user(&client_ca(&root.pem), vec![good.clone()]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("--client-ca-allow-x509-v1"), "without the flag: {refused}");
    let trusted = client_ca(&root.pem).allowing_x509_v1(true);
    let known = user(&trusted, vec![good.clone()]).unwrap().unwrap();
    assert_eq!(known.username, "old-timer");
    assert_eq!(known.groups, ["system:authenticated"]);
    assert!(user(&trusted, vec![old.clone()]).is_ok(), "those of version 3 as before");

    let below = ca(Some(&root), "below");
    let deep = leaf(&below, named("deep"));
    assert!(user(&trusted, vec![deep.clone(), below.der.clone()]).is_ok());
    let expired = leaf(&root, |params| {
        named("late")(params);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let early = leaf(&root, |params| {
        named("early")(params);
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    });
    let mut changed = good.to_vec();
    let at = changed.windows(9).position(|window| window == b"old-timer").unwrap();
    changed[at] = b'O';
    let cases = [
        ("expired", vec![v1(&expired, &root)]),
        ("not yet valid", vec![v1(&early, &root)]),
        ("signed by another key", vec![v1(&old, &namesake)]),
        ("issuer of another name", vec![v1(&leaf(&ca(None, "x"), named("a")), &root)]),
        ("changed", vec![CertificateDer::from(changed)]),
        ("below an authority of version 1", vec![deep.clone(), v1(&below.der, &root)]),
        ("below an intermediate", vec![v1(&deep, &below), below.der.clone()]),
    ];
    for (what, chain) in cases {
        let verdict = user(&trusted, chain);
        assert!(verdict.is_err(), "{what}: {verdict:?}");
    }
}

#[test]
fn certificates_of_version_1_can_be_revoked() {
    let root = ca(None, "root");
    let numbered = |serial: u64| {
        let full = leaf(&root, |params| {
            params.serial_number = Some(SerialNumber::from(serial));
            named("user")(params);
        });
        vec![v1(&full, &root)]
    };
    let anchors = temporary(&root.pem);
    let lists = temporary(&revocation_list(&root, &[2, 200]));
    let trusted = ClientCa::load(&anchors, Some(&lists)).unwrap().allowing_x509_v1(true);
    assert!(user(&trusted, numbered(1)).is_ok());
    for revoked in [2, 200] {
        let verdict = user(&trusted, numbered(revoked));
        assert!(is_revoked(verdict));
    }
    std::fs::write(&lists, revocation_list(&ca(None, "root"), &[])).unwrap();
    trusted.reload().unwrap();
    assert!(
        user(&trusted, numbered(2)).is_err(),
        "a list of another key reinstates no certificate"
    );
}
