//! The members of an `AuthenticationConfiguration`, which are the same in v1, v1beta1 and v1alpha1.

use k8s_audit::document::diagnostic::{Diagnostics, did_you_mean};
use k8s_audit::document::schema::{self, STRING, STRINGS, Struct, Type};
use k8s_audit::document::tree::Node;

static CONFIGURATION: Struct = Struct {
    name: "AuthenticationConfiguration",
    members: &[
        ("apiVersion", STRING),
        ("kind", STRING),
        ("jwt", Type::List(&Type::Struct(&JWT_AUTHENTICATOR))),
        ("anonymous", Type::Struct(&ANONYMOUS)),
    ],
};

static JWT_AUTHENTICATOR: Struct = Struct {
    name: "JWTAuthenticator",
    members: &[
        ("issuer", Type::Struct(&ISSUER)),
        ("claimValidationRules", Type::List(&Type::Struct(&CLAIM_VALIDATION_RULE))),
        ("claimMappings", Type::Struct(&CLAIM_MAPPINGS)),
        ("userValidationRules", Type::List(&Type::Struct(&USER_VALIDATION_RULE))),
    ],
};

static ISSUER: Struct = Struct {
    name: "Issuer",
    members: &[
        ("url", STRING),
        ("discoveryURL", STRING),
        ("certificateAuthority", STRING),
        ("audiences", STRINGS),
        ("audienceMatchPolicy", Type::String("v1.AudienceMatchPolicyType")),
        ("egressSelectorType", Type::String("v1.EgressSelectorType")),
    ],
};

static CLAIM_VALIDATION_RULE: Struct = Struct {
    name: "ClaimValidationRule",
    members: &[
        ("claim", STRING),
        ("requiredValue", STRING),
        ("expression", STRING),
        ("message", STRING),
    ],
};

static CLAIM_MAPPINGS: Struct = Struct {
    name: "ClaimMappings",
    members: &[
        ("username", Type::Struct(&PREFIXED_CLAIM_OR_EXPRESSION)),
        ("groups", Type::Struct(&PREFIXED_CLAIM_OR_EXPRESSION)),
        ("uid", Type::Struct(&CLAIM_OR_EXPRESSION)),
        ("extra", Type::List(&Type::Struct(&EXTRA_MAPPING))),
    ],
};

static PREFIXED_CLAIM_OR_EXPRESSION: Struct = Struct {
    name: "PrefixedClaimOrExpression",
    members: &[("claim", STRING), ("prefix", STRING), ("expression", STRING)],
};

static CLAIM_OR_EXPRESSION: Struct =
    Struct { name: "ClaimOrExpression", members: &[("claim", STRING), ("expression", STRING)] };

static EXTRA_MAPPING: Struct =
    Struct { name: "ExtraMapping", members: &[("key", STRING), ("valueExpression", STRING)] };

static USER_VALIDATION_RULE: Struct =
    Struct { name: "UserValidationRule", members: &[("expression", STRING), ("message", STRING)] };

static ANONYMOUS: Struct = Struct {
    name: "AnonymousAuthConfig",
    members: &[
        ("enabled", Type::Bool),
        ("conditions", Type::List(&Type::Struct(&ANONYMOUS_CONDITION))),
    ],
};

static ANONYMOUS_CONDITION: Struct =
    Struct { name: "AnonymousAuthCondition", members: &[("path", STRING)] };

/// Checks the types of a whole configuration. Unknown members are problems, too.
pub(super) fn check(root: &Node, problems: &mut Diagnostics) {
    let mut unknown = Diagnostics::new("");
    schema::check(root, &CONFIGURATION, problems, &mut unknown, about_unknown);
    for problem in unknown.into_sorted() {
        let message = format!("strict decoding error: {}", problem.message);
        problems.add(problem.at, message, problem.help);
    }
}

fn about_unknown(written: &str, within: &Struct) -> String {
    let places: [(&Struct, &str); 4] = [
        (&ISSUER, "issuer"),
        (&CLAIM_MAPPINGS, "claimMappings"),
        (&JWT_AUTHENTICATOR, "an entry of jwt"),
        (&ANONYMOUS, "anonymous"),
    ];
    let has = |s: &Struct| s.members.iter().any(|(name, _)| *name == written);
    match places.iter().find(|(place, _)| place.name != within.name && has(place)) {
        Some((_, place)) => format!("it belongs to {place:?}: mind the indentation"),
        None => {
            let names = within.members.iter().map(|(name, _)| *name);
            let list = names.clone().collect::<Vec<_>>().join(", ");
            did_you_mean(written, names).unwrap_or_else(|| format!("there are {list}"))
        }
    }
}
