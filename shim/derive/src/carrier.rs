//! Where a type keeps its trace context.

use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, Fields, GenericArgument, Member, PathArguments, Result, Type};

/// What holds the context of a struct or of a variant.
pub struct Carrier {
    pub member: Member,
    pub holds: Holds,
    /// The prost tag of the field.
    pub tag: Option<u32>,
}

/// How the context is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A `TraceContext`.
    Value,
    /// An `Option<TraceContext>`.
    Option,
    /// Another message that carries one.
    Inner,
}

/// Finds the field that holds the context: the marked one, else the one of that name, else the one of that type.
pub fn find(fields: &Fields) -> Result<Option<Carrier>> {
    let mut marked = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        if let Some(inner) = mark(&field.attrs)? {
            marked.push((index, field, inner));
        }
    }
    if let [_, (_, second, _), ..] = &marked[..] {
        return Err(Error::new(second.span(), "only one field can hold the trace context"));
    }
    if let [(index, field, inner)] = marked[..] {
        return carrier(index, field, inner).map(Some);
    }
    let named = |(_, field): &(usize, &Field)| field.ident.as_ref().is_some_and(|name| name == "trace_context");
    let typed = |(_, field): &(usize, &Field)| is_trace_context(option(&field.ty).unwrap_or(&field.ty));
    let all = || fields.iter().enumerate();
    let found = all().find(named).or_else(|| all().find(typed));
    found.map(|(index, field)| carrier(index, field, false)).transpose()
}

fn carrier(index: usize, field: &Field, inner: bool) -> Result<Carrier> {
    let member = field.ident.clone().map_or_else(|| Member::from(index), Member::from);
    let holds = match (inner, option(&field.ty)) {
        (true, _) => Holds::Inner,
        (false, Some(_)) => Holds::Option,
        (false, None) => Holds::Value,
    };
    let tag = field.attrs.iter().find_map(|attribute| tag(attribute).transpose()).transpose()?;
    Ok(Carrier { member, holds, tag })
}

/// `#[trace(context)]` is `Some(false)`, `#[trace(inner)]` is `Some(true)`.
fn mark(attributes: &[Attribute]) -> Result<Option<bool>> {
    let mut mark = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("trace")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("context") {
                mark = Some(false);
            } else if meta.path.is_ident("inner") {
                mark = Some(true);
            } else {
                return Err(meta.error("expected `context` or `inner`"));
            }
            Ok(())
        })?;
    }
    Ok(mark)
}

/// The number in `#[prost(message, optional, tag = "4")]`.
fn tag(attribute: &Attribute) -> Result<Option<u32>> {
    if !attribute.path().is_ident("prost") {
        return Ok(None);
    }
    let mut tag = None;
    attribute.parse_nested_meta(|meta| {
        if let Ok(value) = meta.value() {
            let value: syn::Lit = value.parse()?;
            if meta.path.is_ident("tag") {
                tag = match &value {
                    syn::Lit::Str(text) => text.value().parse().ok(),
                    syn::Lit::Int(number) => number.base10_parse().ok(),
                    _ => None,
                };
            }
        }
        Ok(())
    })?;
    Ok(tag)
}

/// The `T` of `Option<T>`.
fn option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn is_trace_context(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "TraceContext")
}
