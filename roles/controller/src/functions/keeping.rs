//! What a function keeps on disk: whether there is room for another, and ending what can be restored.

use piecework_model::AccountId;
use piecework_store::{Function, Kept};
use serde_json::json;

use crate::{
    Answer,
    accounts::{audit, auth::Caller},
    failure::store,
    functions::{self, Functions},
    quotas,
};

/// Refuses before anything is resolved or loaded what would be refused in the end.
pub(crate) async fn check_room(functions: &Functions, account: AccountId) -> Answer<()> {
    let (used, most) = (
        functions.ground.store.usage(account).await.map_err(store)?,
        functions.ground.store.quotas(account),
    );
    let adds = [(Kept::Functions, 1), (Kept::Versions, 1), (Kept::Bundles, 0)];
    for (kept, added) in adds {
        let (used, most) = (used.get(kept) + added, most.get(kept));
        if used > most {
            return Err(quotas::refused((kept, used, most)));
        }
    }
    Ok(())
}

/// A deleted function goes for good, and its versions with it.
pub(crate) async fn purge(functions: &Functions, function: &Function) -> Answer<()> {
    functions
        .ground
        .store
        .purge_function(function.id)
        .await
        .map_err(store)?;
    functions.bundles.stir();
    Ok(())
}

/// Ends the time in which a function that is deleted can be restored. Refuses with `function.not_found`.
pub(crate) async fn delete_for_good(functions: &Functions, caller: &Caller, id_or_name: &str) -> Answer<()> {
    let deleted = functions::deleted(functions, caller).await?;
    let is_meant = |function: &Function| function.id.to_string() == id_or_name || function.name.as_str() == id_or_name;
    let Some((function, _)) = deleted.into_iter().find(|(function, _)| is_meant(function)) else {
        return functions::not_found(id_or_name);
    };
    purge(functions, &function).await?;
    let detail = json!({"function": function.id, "for_good": true});
    audit::own(
        &functions.accounts,
        caller.account,
        ("function", "deleted"),
        function.name.as_str(),
        detail,
    )
    .await
}
