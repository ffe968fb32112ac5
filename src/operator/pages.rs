//! Lists of what a namespace holds, in small pages: whoever may create objects there may make them as large and as many
//! as the API server takes.

use kube::Api;
use kube::api::ListParams;
use serde::de::Error;

use super::kinds::Observable;
use super::received::Received;

/// Objects in one answer.
const PAGE: u32 = 8;

/// Reads all objects that are selected, one page after another.
///
/// # Errors
/// When a request fails, or an object cannot be read: nothing is known then.
pub async fn for_each<K: Observable + Clone>(
    api: &Api<Received<K>>,
    selected: ListParams,
    mut take: impl FnMut(K),
) -> kube::Result<()> {
    let mut page = selected.limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        for received in list.items {
            match received {
                Received::Read(object) => take(object),
                Received::Unread(metadata, why) => {
                    let name = metadata.name.unwrap_or_default();
                    return Err(kube::Error::SerdeError(Error::custom(format!("{name} cannot be read: {why:?}"))));
                }
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}
