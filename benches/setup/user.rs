//! A user like that of a ServiceAccount token.

use kube_authn::UserInfo;

pub fn user() -> UserInfo {
    UserInfo {
        username: "system:serviceaccount:shop:deployer".into(),
        uid: "3761b3bc-93b9-41fd-9783-0dc0459d48d2".into(),
        groups: ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
            .map(String::from)
            .to_vec(),
        extra: [(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec!["JTI=f1cbe19d-e993-4865-afd1-6fdc8a5dfc85".to_owned()],
        )]
        .into(),
    }
}
