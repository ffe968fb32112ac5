//! Everything that an API server holds, to search it for what must not be there.

use futures::{StreamExt, stream};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{Discovery, verbs};
use serde_json::Value;

/// All objects of all kinds that can be listed, in all namespaces.
pub async fn objects(client: &kube::Client) -> Vec<Value> {
    let discovery = Discovery::new(client.clone()).run().await.expect("the API server's kinds");
    let kinds = discovery.groups().flat_map(|group| group.recommended_resources());
    let kinds: Vec<_> = kinds.filter(|(_, capabilities)| capabilities.supports_operation(verbs::LIST)).collect();
    assert!(kinds.len() > 30, "only {} kinds", kinds.len());
    let lists = stream::iter(kinds).map(async |(kind, _)| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let list = api.list(&ListParams::default()).await.unwrap_or_else(|error| panic!("{}: {error}", kind.kind));
        let with_kind = move |object: DynamicObject| {
            let mut object = serde_json::to_value(object).expect("an object");
            object["kind"] = kind.kind.as_str().into();
            object
        };
        list.items.into_iter().map(with_kind).collect::<Vec<_>>()
    });
    lists.buffer_unordered(8).collect::<Vec<_>>().await.concat()
}

/// The objects that hold a text, clear or as a Secret's base64, as `kind/name`.
pub fn holding(objects: &[Value], text: &str) -> Vec<String> {
    use base64::Engine;
    let encoded = base64::prelude::BASE64_STANDARD.encode(text);
    let holds = |object: &&Value| {
        let json = object.to_string();
        json.contains(text) || json.contains(&encoded)
    };
    let name = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
    };
    let mut found: Vec<String> = objects.iter().filter(holds).map(name).collect();
    found.sort();
    found
}
