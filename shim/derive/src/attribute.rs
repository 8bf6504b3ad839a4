//! `#[trace_context]`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Field, Fields, Item, ItemStruct, LitInt, Meta, Path, Result, Token};

pub fn expand(arguments: TokenStream, item: Item) -> Result<TokenStream> {
    let mut item = match item {
        Item::Struct(item) => item,
        Item::Enum(item) => {
            let message = "an enum has no place for a field: put `#[trace_context]` on the messages that its variants hold, \
                           and mark those `#[trace(inner)]`";
            return Err(Error::new(item.ident.span(), message));
        }
        other => {
            return Err(Error::new_spanned(other, "`#[trace_context]` is for structs"));
        }
    };
    if let Some(field) =
        item.fields.iter().find(|field| field.ident.as_ref().is_some_and(|name| name == "trace_context"))
    {
        return Err(Error::new_spanned(field, "the struct has a `trace_context` already: `#[derive(Span)]` is enough"));
    }
    let arguments: Arguments = syn::parse2(arguments)?;
    let attributes = attributes(&item, arguments.tag)?;
    add(&mut item, attributes)?;
    Ok(item.into_token_stream())
}

/// `tag = 15`, or nothing.
struct Arguments {
    tag: Option<u32>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Ok(Self { tag: None });
        }
        let name: syn::Ident = input.parse()?;
        if name != "tag" {
            return Err(Error::new(name.span(), "expected `tag = NUMBER`"));
        }
        input.parse::<Token![=]>()?;
        let number: LitInt = input.parse()?;
        let tag = number.base10_parse()?;
        match tag {
            0 | 19_000..=19_999 | 0x2000_0000.. => {
                Err(Error::new(number.span(), "protobuf has no field of this number"))
            }
            tag => Ok(Self { tag: Some(tag) }),
        }
    }
}

/// The attributes that the field needs for the derives of the struct.
fn attributes(item: &ItemStruct, tag: Option<u32>) -> Result<Vec<Attribute>> {
    let derives = derives(&item.attrs);
    let mut attributes = TokenStream::new();
    let is_prost =
        item.fields.iter().flat_map(|field| &field.attrs).any(|attribute| attribute.path().is_ident("prost"));
    match tag {
        Some(tag) => {
            let tag = tag.to_string();
            attributes.extend(quote!(#[prost(message, optional, tag = #tag)]));
        }
        None if is_prost || derives.iter().any(|name| name == "Message") => {
            let message = "a prost message needs the field's tag: `#[trace_context(tag = 15)]`";
            return Err(Error::new(Span::call_site(), message));
        }
        None => {}
    }
    if derives.iter().any(|name| name == "Serialize" || name == "Deserialize") {
        attributes.extend(quote!(#[serde(default, rename = "_trace_context")]));
    }
    Attribute::parse_outer.parse2(attributes)
}

/// Last names of the derives that follow.
fn derives(attributes: &[Attribute]) -> Vec<String> {
    let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    let paths = derives.filter_map(|attribute| match &attribute.meta {
        Meta::List(list) => list.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).ok(),
        _ => None,
    });
    let names = paths.flatten().filter_map(|path| path.segments.last().map(|segment| segment.ident.to_string()));
    names.collect()
}

fn add(item: &mut ItemStruct, attributes: Vec<Attribute>) -> Result<()> {
    let ty = quote!(::core::option::Option<::tracer_shim::TraceContext>);
    let doc = quote!(#[doc = "The trace context that the message carries."]);
    match &mut item.fields {
        Fields::Unnamed(fields) => {
            // `rename` is for named fields.
            let attributes = attributes.into_iter().map(|attribute| match attribute.path().is_ident("serde") {
                true => quote!(#[serde(default)]),
                false => attribute.into_token_stream(),
            });
            let field = Field::parse_unnamed.parse2(quote!(#doc #(#attributes)* pub #ty))?;
            fields.unnamed.push(field);
        }
        Fields::Named(fields) => {
            fields.named.push(Field::parse_named.parse2(quote!(#doc #(#attributes)* pub trace_context: #ty))?);
        }
        Fields::Unit => {
            let fields = quote!({ #doc #(#attributes)* pub trace_context: #ty });
            item.fields = Fields::Named(syn::parse2(fields)?);
            item.semi_token = None;
        }
    }
    Ok(())
}
