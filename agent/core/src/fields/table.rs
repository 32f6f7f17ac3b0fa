//! The table itself. A type's fields stand in the order of the schema, so that the two can be compared by eye.

use super::Support::{self, Apart, Done, Nested, Only, Refused};
use super::Type;

const fn kind(name: &'static str, fields: &'static [(&'static str, Support)]) -> Type {
    Type { name, fields }
}

/// `spec` of a pod.
pub static POD_SPEC: Type = kind(
    "PodSpec",
    &[
        ("activeDeadlineSeconds", Done),
        ("affinity", Done),                     // the scheduler's
        ("automountServiceAccountToken", Done), // the API server's admission
        ("containers", Nested(&CONTAINER)),
        ("dnsConfig", Nested(&POD_DNS_CONFIG)),
        ("dnsPolicy", Done),
        ("enableServiceLinks", Done),
        ("ephemeralContainers", Apart),
        ("evictionResponders", Done), // the eviction controllers'
        ("hostAliases", Nested(&HOST_ALIAS)),
        ("hostIPC", Done),
        ("hostNetwork", Done),
        ("hostPID", Done),
        ("hostUsers", Done),
        ("hostname", Done),
        ("hostnameOverride", Done),
        ("imagePullSecrets", Nested(&LOCAL_OBJECT_REFERENCE)),
        ("initContainers", Nested(&CONTAINER)),
        ("nodeName", Done),
        ("nodeSelector", Done), // the scheduler's
        ("os", Nested(&POD_OS)),
        ("overhead", Done),
        ("preemptionPolicy", Done), // the scheduler's
        ("priority", Done),
        ("priorityClassName", Done), // the API server's admission
        ("readinessGates", Nested(&POD_READINESS_GATE)),
        ("resourceClaims", Refused),
        ("resources", Refused),
        ("restartPolicy", Done),
        ("runtimeClassName", Done),
        ("schedulerName", Done),
        ("schedulingGates", Done), // gone before a node sees the pod
        ("schedulingGroup", Done),
        ("securityContext", Nested(&POD_SECURITY_CONTEXT)),
        ("serviceAccount", Done), // old name of the next
        ("serviceAccountName", Done),
        ("setHostnameAsFQDN", Done),
        ("shareProcessNamespace", Done),
        ("subdomain", Done),
        ("terminationGracePeriodSeconds", Done),
        ("tolerations", Done),               // the scheduler's
        ("topologySpreadConstraints", Done), // the scheduler's
        ("volumes", Nested(&VOLUME)),
    ],
);

static CONTAINER: Type = kind(
    "Container",
    &[
        ("args", Done),
        ("command", Done),
        ("env", Nested(&ENV_VAR)),
        ("envFrom", Nested(&ENV_FROM_SOURCE)),
        ("image", Done),
        ("imagePullPolicy", Done),
        ("lifecycle", Nested(&LIFECYCLE)),
        ("livenessProbe", Nested(&PROBE)),
        ("name", Done),
        ("ports", Nested(&CONTAINER_PORT)),
        ("readinessProbe", Nested(&PROBE)),
        ("resizePolicy", Done), // matters when a resize is asked for, which is not implemented
        ("resources", Nested(&RESOURCE_REQUIREMENTS)),
        ("restartPolicy", Done),
        ("restartPolicyRules", Refused),
        ("securityContext", Nested(&SECURITY_CONTEXT)),
        ("startupProbe", Nested(&PROBE)),
        ("stdin", Done),
        ("stdinOnce", Done),
        ("terminationMessagePath", Done),
        ("terminationMessagePolicy", Done),
        ("tty", Done),
        ("volumeDevices", Refused),
        ("volumeMounts", Nested(&VOLUME_MOUNT)),
        ("workingDir", Done),
    ],
);

static PROBE: Type = kind(
    "Probe",
    &[
        ("exec", Nested(&EXEC_ACTION)),
        ("failureThreshold", Done),
        ("grpc", Nested(&GRPC_ACTION)),
        ("httpGet", Nested(&HTTP_GET_ACTION)),
        ("initialDelaySeconds", Done),
        ("periodSeconds", Done),
        ("successThreshold", Done),
        ("tcpSocket", Nested(&TCP_SOCKET_ACTION)),
        ("terminationGracePeriodSeconds", Done),
        ("timeoutSeconds", Done),
    ],
);

static LIFECYCLE: Type = kind(
    "Lifecycle",
    &[("postStart", Nested(&LIFECYCLE_HANDLER)), ("preStop", Nested(&LIFECYCLE_HANDLER)), ("stopSignal", Done)],
);

static LIFECYCLE_HANDLER: Type = kind(
    "LifecycleHandler",
    &[
        ("exec", Nested(&EXEC_ACTION)),
        ("httpGet", Nested(&HTTP_GET_ACTION)),
        ("sleep", Nested(&SLEEP_ACTION)),
        ("tcpSocket", Nested(&TCP_SOCKET_ACTION)), // deprecated by the API: fails when it runs
    ],
);

static EXEC_ACTION: Type = kind("ExecAction", &[("command", Done)]);

static GRPC_ACTION: Type = kind("GRPCAction", &[("mode", Done), ("port", Done), ("service", Done)]);

static HTTP_GET_ACTION: Type = kind(
    "HTTPGetAction",
    &[
        ("host", Done),
        ("httpHeaders", Nested(&HTTP_HEADER)),
        ("path", Done),
        ("port", Done),
        ("protocol", Done),
        ("scheme", Done),
    ],
);

static HTTP_HEADER: Type = kind("HTTPHeader", &[("name", Done), ("value", Done)]);

static SLEEP_ACTION: Type = kind("SleepAction", &[("seconds", Done)]);

static TCP_SOCKET_ACTION: Type = kind("TCPSocketAction", &[("host", Done), ("port", Done)]);

static CONTAINER_PORT: Type = kind(
    "ContainerPort",
    &[("containerPort", Done), ("hostIP", Done), ("hostPort", Done), ("name", Done), ("protocol", Done)],
);

static RESOURCE_REQUIREMENTS: Type =
    kind("ResourceRequirements", &[("claims", Refused), ("limits", Done), ("requests", Done)]);

static ENV_VAR: Type = kind("EnvVar", &[("name", Done), ("value", Done), ("valueFrom", Nested(&ENV_VAR_SOURCE))]);

static ENV_VAR_SOURCE: Type = kind(
    "EnvVarSource",
    &[
        ("configMapKeyRef", Nested(&CONFIG_MAP_KEY_SELECTOR)),
        ("fieldRef", Nested(&OBJECT_FIELD_SELECTOR)),
        ("fileKeyRef", Refused),
        ("resourceFieldRef", Nested(&RESOURCE_FIELD_SELECTOR)),
        ("secretKeyRef", Nested(&SECRET_KEY_SELECTOR)),
    ],
);

static CONFIG_MAP_KEY_SELECTOR: Type =
    kind("ConfigMapKeySelector", &[("key", Done), ("name", Done), ("optional", Done)]);

static SECRET_KEY_SELECTOR: Type = kind("SecretKeySelector", &[("key", Done), ("name", Done), ("optional", Done)]);

static OBJECT_FIELD_SELECTOR: Type = kind("ObjectFieldSelector", &[("apiVersion", Done), ("fieldPath", Done)]);

static RESOURCE_FIELD_SELECTOR: Type =
    kind("ResourceFieldSelector", &[("containerName", Done), ("divisor", Done), ("resource", Done)]);

static ENV_FROM_SOURCE: Type = kind(
    "EnvFromSource",
    &[("configMapRef", Nested(&CONFIG_MAP_ENV_SOURCE)), ("prefix", Done), ("secretRef", Nested(&SECRET_ENV_SOURCE))],
);

static CONFIG_MAP_ENV_SOURCE: Type = kind("ConfigMapEnvSource", &[("name", Done), ("optional", Done)]);

static SECRET_ENV_SOURCE: Type = kind("SecretEnvSource", &[("name", Done), ("optional", Done)]);

static LOCAL_OBJECT_REFERENCE: Type = kind("LocalObjectReference", &[("name", Done)]);

static HOST_ALIAS: Type = kind("HostAlias", &[("hostnames", Done), ("ip", Done)]);

static POD_DNS_CONFIG: Type =
    kind("PodDNSConfig", &[("nameservers", Done), ("options", Nested(&POD_DNS_CONFIG_OPTION)), ("searches", Done)]);

static POD_DNS_CONFIG_OPTION: Type = kind("PodDNSConfigOption", &[("name", Done), ("value", Done)]);

static POD_OS: Type = kind("PodOS", &[("name", Done)]);

static POD_READINESS_GATE: Type = kind("PodReadinessGate", &[("conditionType", Done)]);

static POD_SECURITY_CONTEXT: Type = kind(
    "PodSecurityContext",
    &[
        ("appArmorProfile", Nested(&APP_ARMOR_PROFILE)),
        ("fsGroup", Done),
        ("fsGroupChangePolicy", Done), // matters for volumes that outlive the pod, none of which is implemented
        ("runAsGroup", Done),
        ("runAsNonRoot", Done),
        ("runAsUser", Done),
        ("seLinuxChangePolicy", Done), // matters with seLinuxOptions
        ("seLinuxOptions", Refused),
        ("seccompProfile", Nested(&SECCOMP_PROFILE)),
        ("supplementalGroups", Done),
        ("supplementalGroupsPolicy", Only(&["Merge"])),
        ("sysctls", Nested(&SYSCTL)),
        ("windowsOptions", Refused),
    ],
);

static SECURITY_CONTEXT: Type = kind(
    "SecurityContext",
    &[
        ("allowPrivilegeEscalation", Done),
        ("appArmorProfile", Nested(&APP_ARMOR_PROFILE)),
        ("capabilities", Nested(&CAPABILITIES)),
        ("privileged", Done),
        ("procMount", Only(&["Default"])),
        ("readOnlyRootFilesystem", Done),
        ("runAsGroup", Done),
        ("runAsNonRoot", Done),
        ("runAsUser", Done),
        ("seLinuxOptions", Refused),
        ("seccompProfile", Nested(&SECCOMP_PROFILE)),
        ("windowsOptions", Refused),
    ],
);

static CAPABILITIES: Type = kind("Capabilities", &[("add", Done), ("drop", Done)]);

static APP_ARMOR_PROFILE: Type =
    kind("AppArmorProfile", &[("localhostProfile", Refused), ("type", Only(&["Unconfined"]))]);

static SECCOMP_PROFILE: Type =
    kind("SeccompProfile", &[("localhostProfile", Refused), ("type", Only(&["RuntimeDefault", "Unconfined"]))]);

static SYSCTL: Type = kind("Sysctl", &[("name", Done), ("value", Done)]);

static VOLUME_MOUNT: Type = kind(
    "VolumeMount",
    &[
        ("bindMountOptions", Refused),
        ("mountPath", Done),
        ("mountPropagation", Only(&["None"])),
        ("name", Done),
        ("readOnly", Done),
        ("recursiveReadOnly", Only(&["Disabled", "IfPossible"])),
        ("subPath", Done),
        ("subPathExpr", Done),
    ],
);

static VOLUME: Type = kind(
    "Volume",
    &[
        ("awsElasticBlockStore", Refused),
        ("azureDisk", Refused),
        ("azureFile", Refused),
        ("cephfs", Refused),
        ("cinder", Refused),
        ("configMap", Nested(&CONFIG_MAP_VOLUME_SOURCE)),
        ("csi", Refused),
        ("downwardAPI", Nested(&DOWNWARD_API_VOLUME_SOURCE)),
        ("emptyDir", Nested(&EMPTY_DIR_VOLUME_SOURCE)),
        ("ephemeral", Refused),
        ("fc", Refused),
        ("flexVolume", Refused),
        ("flocker", Refused),
        ("gcePersistentDisk", Refused),
        ("gitRepo", Refused),
        ("glusterfs", Refused),
        ("hostPath", Nested(&HOST_PATH_VOLUME_SOURCE)),
        ("image", Refused),
        ("iscsi", Refused),
        ("name", Done),
        ("nfs", Refused),
        ("persistentVolumeClaim", Refused),
        ("photonPersistentDisk", Refused),
        ("portworxVolume", Refused),
        ("projected", Nested(&PROJECTED_VOLUME_SOURCE)),
        ("quobyte", Refused),
        ("rbd", Refused),
        ("scaleIO", Refused),
        ("secret", Nested(&SECRET_VOLUME_SOURCE)),
        ("storageos", Refused),
        ("vsphereVolume", Refused),
    ],
);

static CONFIG_MAP_VOLUME_SOURCE: Type = kind(
    "ConfigMapVolumeSource",
    &[
        ("defaultMode", Done),
        ("defaultUser", Refused),
        ("items", Nested(&KEY_TO_PATH)),
        ("name", Done),
        ("optional", Done),
    ],
);

static SECRET_VOLUME_SOURCE: Type = kind(
    "SecretVolumeSource",
    &[
        ("defaultMode", Done),
        ("defaultUser", Refused),
        ("items", Nested(&KEY_TO_PATH)),
        ("optional", Done),
        ("secretName", Done),
    ],
);

static DOWNWARD_API_VOLUME_SOURCE: Type = kind(
    "DownwardAPIVolumeSource",
    &[("defaultMode", Done), ("defaultUser", Refused), ("items", Nested(&DOWNWARD_API_VOLUME_FILE))],
);

static DOWNWARD_API_VOLUME_FILE: Type = kind(
    "DownwardAPIVolumeFile",
    &[
        ("fieldRef", Nested(&OBJECT_FIELD_SELECTOR)),
        ("mode", Done),
        ("path", Done),
        ("resourceFieldRef", Nested(&RESOURCE_FIELD_SELECTOR)),
        ("user", Refused),
    ],
);

static KEY_TO_PATH: Type = kind("KeyToPath", &[("key", Done), ("mode", Done), ("path", Done), ("user", Refused)]);

static EMPTY_DIR_VOLUME_SOURCE: Type =
    kind("EmptyDirVolumeSource", &[("medium", Only(&["Memory"])), ("mode", Refused), ("sizeLimit", Done)]);

static HOST_PATH_VOLUME_SOURCE: Type = kind("HostPathVolumeSource", &[("path", Done), ("type", Done)]);

static PROJECTED_VOLUME_SOURCE: Type = kind(
    "ProjectedVolumeSource",
    &[("defaultMode", Done), ("defaultUser", Refused), ("sources", Nested(&VOLUME_PROJECTION))],
);

static VOLUME_PROJECTION: Type = kind(
    "VolumeProjection",
    &[
        ("clusterTrustBundle", Refused),
        ("configMap", Nested(&CONFIG_MAP_PROJECTION)),
        ("downwardAPI", Nested(&DOWNWARD_API_PROJECTION)),
        ("podCertificate", Refused),
        ("secret", Nested(&SECRET_PROJECTION)),
        ("serviceAccountToken", Nested(&SERVICE_ACCOUNT_TOKEN_PROJECTION)),
    ],
);

static CONFIG_MAP_PROJECTION: Type =
    kind("ConfigMapProjection", &[("items", Nested(&KEY_TO_PATH)), ("name", Done), ("optional", Done)]);

static SECRET_PROJECTION: Type =
    kind("SecretProjection", &[("items", Nested(&KEY_TO_PATH)), ("name", Done), ("optional", Done)]);

static DOWNWARD_API_PROJECTION: Type = kind("DownwardAPIProjection", &[("items", Nested(&DOWNWARD_API_VOLUME_FILE))]);

static SERVICE_ACCOUNT_TOKEN_PROJECTION: Type = kind(
    "ServiceAccountTokenProjection",
    &[("audience", Done), ("expirationSeconds", Done), ("path", Done), ("user", Refused)],
);
