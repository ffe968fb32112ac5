//! Builds the Ingress by which clients outside of the Kubernetes cluster reach the leader.

use serde_json::{Value, json};

use super::object;
use crate::api::names::{self, REST_PORT};
use crate::cluster::Cluster;
use crate::cluster::merge::merge;

/// API version and kind of the object.
const INGRESS: (&str, &str) = ("networking.k8s.io/v1", "Ingress");

/// Returns the Ingress, if the resource wants one. It leads to the Service of the leader: a standby would not answer
/// uploads of jars.
pub fn wanted(cluster: &Cluster) -> Option<Value> {
    let wanted = cluster.spec().ingress.as_ref()?;
    let service = json!({ "name": names::rest(cluster.name()), "port": { "number": REST_PORT } });
    let path = json!({ "path": wanted.path, "pathType": "Prefix", "backend": { "service": service } });
    let mut rule = json!({ "http": { "paths": [path] } });
    if let Some(host) = &wanted.host {
        rule["host"] = host.clone().into();
    }
    let mut spec = json!({ "rules": [rule] });
    if let Some(class) = &wanted.class_name {
        spec["ingressClassName"] = class.clone().into();
    }
    if let Some(secret) = &wanted.tls {
        let mut tls = json!({ "secretName": secret.name });
        if let Some(host) = &wanted.host {
            tls["hosts"] = json!([host]);
        }
        spec["tls"] = json!([tls]);
    }
    let mut ingress = identified(cluster, json!({ "spec": spec }));
    if !wanted.annotations.is_empty() {
        merge(&mut ingress, json!({ "metadata": { "annotations": wanted.annotations } }));
    }
    Some(ingress)
}

/// Returns what identifies the Ingress of a resource that does not want it.
pub fn unwanted(cluster: &Cluster) -> Option<Value> {
    cluster.spec().ingress.is_none().then(|| identified(cluster, json!({})))
}

fn identified(cluster: &Cluster, body: Value) -> Value {
    object(cluster, INGRESS.0, INGRESS.1, &names::rest(cluster.name()), body)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::Ingress;

    use super::*;
    use crate::cluster::tests as fixture;

    fn of(fields: Value) -> (Option<Value>, Option<Value>) {
        let cluster = fixture::cluster_with(|spec| spec.ingress = serde_json::from_value(fields).unwrap_or_default());
        (wanted(&cluster), unwanted(&cluster))
    }

    #[test]
    fn it_leads_to_the_service_of_the_leader_and_says_no_more_than_the_user() {
        let (ingress, unwanted) = of(json!({}));
        let ingress = ingress.expect("it is wanted");
        let backend = json!({ "service": { "name": "demo-rest", "port": { "number": 8081 } } });
        let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
        assert_eq!(ingress["spec"], json!({ "rules": [{ "http": { "paths": [path] } }] }));
        assert!(unwanted.is_none() && ingress["metadata"]["ownerReferences"].is_array(), "{ingress}");
        let (none, unwanted) = of(Value::Null);
        assert_eq!(
            (none, unwanted.map(|ingress| ingress["metadata"]["name"].clone())),
            (None, Some(json!("demo-rest")))
        );
    }

    #[test]
    fn every_field_is_where_kubernetes_reads_it() {
        let fields = json!({
            "host": "flink.example.org", "path": "/flink", "className": "nginx", "annotations": { "a": "b" },
            "tls": { "name": "certificate" },
        });
        let ingress = of(fields).0.expect("it is wanted");
        let typed: Ingress = serde_json::from_value(ingress.clone()).expect("fields that Kubernetes knows");
        assert_eq!(json!(typed), ingress);
        let spec = &ingress["spec"];
        assert_eq!(
            (&spec["rules"][0]["host"], &spec["ingressClassName"]),
            (&json!("flink.example.org"), &json!("nginx"))
        );
        assert_eq!(spec["rules"][0]["http"]["paths"][0]["path"], "/flink");
        assert_eq!(spec["tls"], json!([{ "hosts": ["flink.example.org"], "secretName": "certificate" }]));
        assert_eq!(ingress["metadata"]["annotations"]["a"], "b");
    }
}
