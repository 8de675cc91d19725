"""Field numbers of the messages that Go clients send as protobuf. Types are not here: those are the schemas'.

Spec: the numbers are part of Kubernetes' public wire contract and never change. One line per message: its fields in
order of their numbers; a number in front of a name says where counting goes on. ``@name`` is embedded: its fields
belong to the message itself. What is missing here is refused with the advice to send JSON.
"""

from typing import Final

_META: Final = """
ObjectMeta: name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp
  deletionGracePeriodSeconds labels annotations ownerReferences finalizers 17 managedFields
OwnerReference: kind 3 name uid apiVersion controller blockOwnerDeletion
LabelSelector: matchLabels matchExpressions
LabelSelectorRequirement: key operator values
FieldSelectorRequirement: key operator values
ManagedFieldsEntry: manager operation apiVersion time 6 fieldsType fieldsV1 subresource
DeleteOptions: gracePeriodSeconds preconditions orphanDependents propagationPolicy dryRun
Preconditions: uid resourceVersion
Condition: type status observedGeneration lastTransitionTime reason message
"""

_CORE: Final = """
ConfigMap: metadata data binaryData immutable
Secret: metadata data type stringData immutable
ServiceAccount: metadata secrets imagePullSecrets automountServiceAccountToken
Namespace: metadata spec status
NamespaceSpec: finalizers
NamespaceStatus: phase conditions
Binding: metadata target
ObjectReference: kind namespace name uid apiVersion resourceVersion fieldPath
LocalObjectReference: name
Event: metadata involvedObject reason message source firstTimestamp lastTimestamp count type eventTime series action
  related reportingComponent reportingInstance
EventSource: component host
EventSeries: count lastObservedTime
ResourceQuota: metadata spec status
ResourceQuotaSpec: hard scopes scopeSelector
ResourceQuotaStatus: hard used
Service: metadata spec status
ServiceSpec: ports selector clusterIP type externalIPs 7 sessionAffinity loadBalancerIP loadBalancerSourceRanges
  externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses sessionAffinityConfig
  17 ipFamilyPolicy clusterIPs ipFamilies allocateLoadBalancerNodePorts loadBalancerClass internalTrafficPolicy
  trafficDistribution
ServicePort: name protocol port targetPort nodePort appProtocol
ServiceStatus: loadBalancer conditions
LoadBalancerStatus: ingress
SessionAffinityConfig: clientIP
ClientIPConfig: timeoutSeconds
Pod: metadata spec status
PodTemplateSpec: metadata spec
PodSpec: volumes containers restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy nodeSelector
  serviceAccountName serviceAccount nodeName hostNetwork hostPID hostIPC securityContext imagePullSecrets hostname
  subdomain affinity schedulerName initContainers automountServiceAccountToken tolerations hostAliases
  priorityClassName priority dnsConfig shareProcessNamespace readinessGates runtimeClassName enableServiceLinks
  preemptionPolicy overhead topologySpreadConstraints
PodStatus: phase conditions message reason hostIP podIP startTime containerStatuses qosClass initContainerStatuses
Container: name image command args workingDir ports env resources volumeMounts livenessProbe readinessProbe lifecycle
  terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom terminationMessagePolicy
  volumeDevices startupProbe resizePolicy restartPolicy
ContainerPort: name hostPort containerPort protocol hostIP
EnvVar: name value valueFrom
EnvVarSource: fieldRef resourceFieldRef configMapKeyRef secretKeyRef
EnvFromSource: prefix configMapRef secretRef
ObjectFieldSelector: apiVersion fieldPath
ResourceFieldSelector: containerName resource divisor
ConfigMapEnvSource: @LocalObjectReference optional
SecretEnvSource: @LocalObjectReference optional
ConfigMapKeySelector: @LocalObjectReference key optional
SecretKeySelector: @LocalObjectReference key optional
ResourceRequirements: limits requests claims
VolumeMount: name readOnly mountPath subPath mountPropagation subPathExpr recursiveReadOnly
Volume: name @VolumeSource
VolumeSource: hostPath emptyDir 6 secret nfs 10 persistentVolumeClaim 16 downwardAPI 19 configMap 26 projected
HostPathVolumeSource: path type
EmptyDirVolumeSource: medium sizeLimit
SecretVolumeSource: secretName items defaultMode optional
ConfigMapVolumeSource: @LocalObjectReference items defaultMode optional
NFSVolumeSource: server path readOnly
PersistentVolumeClaimVolumeSource: claimName readOnly
KeyToPath: key path mode
Toleration: key operator value effect tolerationSeconds
Probe: @ProbeHandler initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold
  terminationGracePeriodSeconds
ProbeHandler: exec httpGet tcpSocket grpc
ExecAction: command
HTTPGetAction: path port host scheme httpHeaders
HTTPHeader: name value
TCPSocketAction: port host
GRPCAction: port service
PodSecurityContext: seLinuxOptions runAsUser runAsNonRoot supplementalGroups fsGroup runAsGroup sysctls windowsOptions
  fsGroupChangePolicy seccompProfile
SecurityContext: capabilities privileged seLinuxOptions runAsUser runAsNonRoot readOnlyRootFilesystem
  allowPrivilegeEscalation runAsGroup procMount windowsOptions seccompProfile
Capabilities: add drop
SeccompProfile: type localhostProfile
"""

_OTHERS: Final = {
    "apps": """
Deployment: metadata spec status
DeploymentSpec: replicas selector template strategy minReadySeconds revisionHistoryLimit paused
  9 progressDeadlineSeconds
DeploymentStrategy: type rollingUpdate
RollingUpdateDeployment: maxUnavailable maxSurge
DeploymentStatus: observedGeneration replicas updatedReplicas availableReplicas unavailableReplicas conditions
  readyReplicas collisionCount
""",
    "batch": """
Job: metadata spec status
JobSpec: parallelism completions activeDeadlineSeconds selector manualSelector template backoffLimit
  ttlSecondsAfterFinished completionMode suspend
JobStatus: conditions startTime completionTime active succeeded failed completedIndexes uncountedTerminatedPods ready
  failedIndexes terminating
JobTemplateSpec: metadata spec
CronJob: metadata spec status
CronJobSpec: schedule startingDeadlineSeconds concurrencyPolicy suspend jobTemplate successfulJobsHistoryLimit
  failedJobsHistoryLimit timeZone
CronJobStatus: active 4 lastScheduleTime lastSuccessfulTime
""",
    "networking": """
Ingress: metadata spec status
IngressSpec: defaultBackend tls rules ingressClassName
IngressTLS: hosts secretName
IngressRule: host @IngressRuleValue
IngressRuleValue: http
HTTPIngressRuleValue: paths
HTTPIngressPath: path backend pathType
IngressBackend: 3 resource service
IngressServiceBackend: name port
ServiceBackendPort: name number
IngressStatus: loadBalancer
IngressLoadBalancerStatus: ingress
""",
    "policy": """
Eviction: metadata deleteOptions
PodDisruptionBudget: metadata spec status
PodDisruptionBudgetSpec: minAvailable selector maxUnavailable unhealthyPodEvictionPolicy
PodDisruptionBudgetStatus: observedGeneration disruptedPods disruptionsAllowed currentHealthy desiredHealthy
  expectedPods conditions
""",
    "rbac": """
Role: metadata rules
ClusterRole: metadata rules aggregationRule
AggregationRule: clusterRoleSelectors
PolicyRule: verbs apiGroups resources resourceNames nonResourceURLs
RoleBinding: metadata subjects roleRef
ClusterRoleBinding: metadata subjects roleRef
Subject: kind apiGroup name namespace
RoleRef: apiGroup kind name
""",
    "scheduling": """
PriorityClass: metadata value globalDefault description preemptionPolicy
""",
    "coordination": """
Lease: metadata spec
LeaseSpec: holderIdentity leaseDurationSeconds acquireTime renewTime leaseTransitions strategy preferredHolder
""",
    "authentication": """
TokenRequest: metadata spec status
TokenRequestSpec: audiences 3 boundObjectRef expirationSeconds
TokenRequestStatus: token expirationTimestamp
BoundObjectReference: kind apiVersion name uid
TokenReview: metadata spec status
TokenReviewSpec: token audiences
TokenReviewStatus: authenticated user error audiences
SelfSubjectReview: metadata status
SelfSubjectReviewStatus: userInfo
UserInfo: username uid groups extra
""",
    "authorization": """
SubjectAccessReview: metadata spec status
LocalSubjectAccessReview: metadata spec status
SelfSubjectAccessReview: metadata spec status
SelfSubjectRulesReview: metadata spec status
SubjectAccessReviewSpec: resourceAttributes nonResourceAttributes user groups extra uid
SelfSubjectAccessReviewSpec: resourceAttributes nonResourceAttributes
SelfSubjectRulesReviewSpec: namespace
SubjectAccessReviewStatus: allowed reason evaluationError denied
SubjectRulesReviewStatus: resourceRules nonResourceRules incomplete evaluationError
ResourceAttributes: namespace verb group version resource subresource name fieldSelector labelSelector
NonResourceAttributes: path verb
FieldSelectorAttributes: rawSelector requirements
LabelSelectorAttributes: rawSelector requirements
""",
}


def _parse(package: str, text: str) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    message, number = "", 0
    for word in text.split():
        if word.endswith(":"):
            message, number = f"{package}.{word[:-1]}", 0
            found[message] = {}
        elif word.isdigit():
            number = int(word) - 1
        else:
            number += 1
            found[message][number] = word
    return found


OMITTED_ZEROS: Final = frozenset(
    (
        *("stdin", "stdinOnce", "tty", "hostNetwork", "hostPID", "hostIPC", "readOnly", "paused", "globalDefault"),
        *("publishNotReadyAddresses", "hostPort", "nodePort", "healthCheckNodePort", "initialDelaySeconds"),
        *("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold", "minReadySeconds"),
        *("generation", "observedGeneration", "count", "number"),
    )
)
"""Plain (not optional) numbers and booleans: Go always sends them, and JSON leaves their zero out."""

NUMBERS: Final[dict[str, dict[int, str]]] = {
    **_parse("io.k8s.apimachinery.pkg.apis.meta.v1", _META),
    **_parse("io.k8s.api.core.v1", _CORE),
    **{
        name: found for group, text in _OTHERS.items() for name, found in _parse(f"io.k8s.api.{group}.v1", text).items()
    },
}
"""Definition name -> field number -> JSON name."""
