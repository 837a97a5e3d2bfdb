//! The kinds of Kubernetes' built-in resources, for bodies without `kind`.

use super::Resource;

pub(super) struct ResourceKind {
    pub(super) kind: &'static str,
}

/// Whether the API group is built in, so that its objects are decoded into Go types.
pub(super) fn is_built_in(group: &[u8]) -> bool {
    matches!(group, b"" | b"apps" | b"autoscaling" | b"batch" | b"policy" | b"extensions")
        || group.ends_with(b".k8s.io")
}

/// Returns the kind of the objects that are sent to a resource or to its subresource.
pub(super) fn kind(resource: &Resource<'_>) -> Option<ResourceKind> {
    let (group, name) =
        (str::from_utf8(resource.group).ok()?, str::from_utf8(resource.resource).ok()?);
    let kind = match (name, resource.subresource) {
        (_, b"scale") => "Scale",
        ("pods", b"eviction") => "Eviction",
        ("pods", b"binding") => "Binding",
        ("serviceaccounts", b"token") => "TokenRequest",
        _ => KINDS.iter().find(|(g, n, _)| (*g, *n) == (group, name))?.2,
    };
    Some(ResourceKind { kind })
}

/// API group, resource and kind.
const KINDS: [(&str, &str, &str); 75] = [
    ("", "bindings", "Binding"),
    ("", "configmaps", "ConfigMap"),
    ("", "endpoints", "Endpoints"),
    ("", "events", "Event"),
    ("", "limitranges", "LimitRange"),
    ("", "namespaces", "Namespace"),
    ("", "nodes", "Node"),
    ("", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("", "persistentvolumes", "PersistentVolume"),
    ("", "pods", "Pod"),
    ("", "podtemplates", "PodTemplate"),
    ("", "replicationcontrollers", "ReplicationController"),
    ("", "resourcequotas", "ResourceQuota"),
    ("", "secrets", "Secret"),
    ("", "serviceaccounts", "ServiceAccount"),
    ("", "services", "Service"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
    (
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "apiservices", "APIService"),
    ("apps", "controllerrevisions", "ControllerRevision"),
    ("apps", "daemonsets", "DaemonSet"),
    ("apps", "deployments", "Deployment"),
    ("apps", "replicasets", "ReplicaSet"),
    ("apps", "statefulsets", "StatefulSet"),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authentication.k8s.io", "tokenreviews", "TokenReview"),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
    ("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("batch", "cronjobs", "CronJob"),
    ("batch", "jobs", "Job"),
    ("certificates.k8s.io", "certificatesigningrequests", "CertificateSigningRequest"),
    ("certificates.k8s.io", "clustertrustbundles", "ClusterTrustBundle"),
    ("certificates.k8s.io", "podcertificaterequests", "PodCertificateRequest"),
    ("coordination.k8s.io", "leasecandidates", "LeaseCandidate"),
    ("coordination.k8s.io", "leases", "Lease"),
    ("discovery.k8s.io", "endpointslices", "EndpointSlice"),
    ("events.k8s.io", "events", "Event"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "PriorityLevelConfiguration"),
    ("internal.apiserver.k8s.io", "storageversions", "StorageVersion"),
    ("networking.k8s.io", "ingressclasses", "IngressClass"),
    ("networking.k8s.io", "ingresses", "Ingress"),
    ("networking.k8s.io", "ipaddresses", "IPAddress"),
    ("networking.k8s.io", "networkpolicies", "NetworkPolicy"),
    ("networking.k8s.io", "servicecidrs", "ServiceCIDR"),
    ("node.k8s.io", "runtimeclasses", "RuntimeClass"),
    ("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "clusterroles", "ClusterRole"),
    ("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    ("rbac.authorization.k8s.io", "roles", "Role"),
    ("resource.k8s.io", "deviceclasses", "DeviceClass"),
    ("resource.k8s.io", "devicetaintrules", "DeviceTaintRule"),
    ("resource.k8s.io", "resourceclaims", "ResourceClaim"),
    ("resource.k8s.io", "resourceclaimtemplates", "ResourceClaimTemplate"),
    ("resource.k8s.io", "resourceslices", "ResourceSlice"),
    ("scheduling.k8s.io", "priorityclasses", "PriorityClass"),
    ("scheduling.k8s.io", "workloads", "Workload"),
    ("scheduling.k8s.io", "podgroups", "PodGroup"),
    ("storage.k8s.io", "csidrivers", "CSIDriver"),
    ("storage.k8s.io", "csinodes", "CSINode"),
    ("storage.k8s.io", "csistoragecapacities", "CSIStorageCapacity"),
    ("storage.k8s.io", "storageclasses", "StorageClass"),
    ("storage.k8s.io", "volumeattachments", "VolumeAttachment"),
    ("storage.k8s.io", "volumeattributesclasses", "VolumeAttributesClass"),
    ("storagemigration.k8s.io", "storageversionmigrations", "StorageVersionMigration"),
    ("extensions", "ingresses", "Ingress"),
];
