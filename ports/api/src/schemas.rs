//! Schemas of the shared nouns that serialise themselves.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type},
    },
};

/// The schema of [`piecework_model::Credits`]: a number below 2^53 in size, a decimal string above.
#[derive(Debug)]
pub struct Ucr;

impl PartialSchema for Ucr {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .build();
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^-?[0-9]{1,39}$"))
            .build();
        OneOfBuilder::new()
            .item(number)
            .item(text)
            .description(Some("micro-credits; a string where a JSON number would lose digits"))
            .into()
    }
}

impl ToSchema for Ucr {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Ucr")
    }
}
