//! `#[derive(Span)]`.

use crate::carrier::{self, Carrier, Holds};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Ident, Result};

/// How to get at the context of a value of the type: match arms for reading and for writing.
struct Access {
    get: TokenStream,
    set: TokenStream,
}

pub fn expand(input: DeriveInput) -> Result<TokenStream> {
    let name = &input.ident;
    let (arms, tag) = match &input.data {
        Data::Struct(data) => {
            let carrier = carrier::find(&data.fields)?.ok_or_else(|| missing(name))?;
            (vec![access(&quote!(Self), Some(&carrier))], carrier.tag)
        }
        Data::Enum(data) => {
            let mut arms = Vec::new();
            for variant in &data.variants {
                let carrier = carrier::find(&variant.fields)?;
                let ident = &variant.ident;
                let lone = matches!(&variant.fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1);
                if carrier.as_ref().is_some_and(|carrier| carrier.holds == Holds::Inner) && !lone {
                    return Err(Error::new_spanned(variant, "`#[trace(inner)]` is for variants that hold one message"));
                }
                arms.push(access(&quote!(Self::#ident), carrier.as_ref()));
            }
            (arms, None)
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(name, "a union cannot carry a trace context"));
        }
    };
    let conversions = conversions(&input, &arms);
    let methods = tag.map(|tag| methods(&input, tag));
    Ok(quote!(#conversions #methods))
}

fn missing(name: &Ident) -> Error {
    let message = format!(
        "`{name}` has no field for the trace context\n\
         help: let the attribute add it, above the derives: `#[tracer_shim::trace_context]`\n\
         help: or add `trace_context: Option<TraceContext>`, or mark the field that has it: `#[trace(context)]`"
    );
    Error::new(name.span(), message)
}

/// The arms of one struct or variant, whose path is `path`.
fn access(path: &TokenStream, carrier: Option<&Carrier>) -> Access {
    let Some(Carrier { member, holds, .. }) = carrier else {
        return Access { get: quote!(#path { .. } => None,), set: quote!(#path { .. } => {}) };
    };
    let held = format_ident!("held");
    let value = match holds {
        Holds::Value | Holds::Inner => quote!(#held),
        Holds::Option => quote!(#held.as_ref()?),
    };
    let get = match holds {
        Holds::Inner => quote!(::tracer_shim::Carrier::trace_context(#value)),
        _ => quote! {{
            let held = #value;
            ::tracer_shim::Context::from_hex(&held.trace_id, &held.span_id, held.sampled)
        }},
    };
    let set = match holds {
        Holds::Inner => quote!(::tracer_shim::Carrier::set_trace_context(#held, context)),
        _ => {
            let place = match holds {
                Holds::Option => {
                    quote!(#held.get_or_insert_with(::core::default::Default::default))
                }
                _ => quote!(#held),
            };
            quote! {{
                let held = #place;
                held.trace_id = ::std::string::ToString::to_string(&context.trace_id());
                held.span_id = ::std::string::ToString::to_string(&context.span_id());
                held.sampled = context.is_sampled();
            }}
        }
    };
    Access { get: quote!(#path { #member: #held, .. } => #get,), set: quote!(#path { #member: #held, .. } => #set,) }
}

fn conversions(input: &DeriveInput, arms: &[Access]) -> TokenStream {
    let name = &input.ident;
    let (generics, ty, bounds) = input.generics.split_for_impl();
    let predicates = bounds.map(|bounds| &bounds.predicates);
    let (get, set) = (arms.iter().map(|arm| &arm.get), arms.iter().map(|arm| &arm.set));
    quote! {
        #[automatically_derived]
        impl #generics ::tracer_shim::Carrier for #name #ty #bounds {
            fn trace_context(&self) -> ::core::option::Option<::tracer_shim::Context> {
                match self { #(#get)* }
            }

            fn set_trace_context(&mut self, context: ::tracer_shim::Context) {
                match self { #(#set)* }
            }
        }

        #[automatically_derived]
        impl #generics ::core::convert::From<::tracer_shim::Context> for #name #ty
        where for<'trace> #name #ty: ::core::default::Default, #predicates {
            fn from(context: ::tracer_shim::Context) -> Self {
                let mut message = <Self as ::core::default::Default>::default();
                ::tracer_shim::Carrier::set_trace_context(&mut message, context);
                message
            }
        }

        #[automatically_derived]
        impl #generics ::core::convert::TryFrom<&#name #ty> for ::tracer_shim::Context #bounds {
            type Error = ::tracer_shim::NoContext;

            fn try_from(message: &#name #ty) -> ::core::result::Result<Self, ::tracer_shim::NoContext> {
                ::tracer_shim::Carrier::trace_context(message).ok_or(::tracer_shim::NoContext)
            }
        }

        #[automatically_derived]
        impl #generics #name #ty #bounds {
            /// Begins a span that is a child of the sender's; without a valid context in the message, the first span of
            /// a new trace.
            pub fn create_span(&self, name: &str) -> ::tracer_shim::Span {
                ::tracer_shim::Carrier::create_span(self, name)
            }
        }

        ::tracer_shim::__opentelemetry!([#generics] [#name #ty] [#predicates]);
    }
}

/// The codec methods of a prost message whose `trace_context` has this tag.
fn methods(input: &DeriveInput, tag: u32) -> TokenStream {
    let name = &input.ident;
    let (generics, ty, bounds) = input.generics.split_for_impl();
    quote! {
        /// Encoding and decoding with the trace context in the message's own field.
        #[automatically_derived]
        impl #generics #name #ty #bounds {
            /// As [`tracer_shim::Message::encode`].
            ///
            /// # Errors
            /// The buffer has too little room for the message.
            #[inline]
            pub fn encode(
                &self,
                buf: &mut impl ::tracer_shim::__private::BufMut,
            ) -> ::core::result::Result<(), ::tracer_shim::__private::EncodeError> {
                ::tracer_shim::__private::encode(self, ::tracer_shim::__private::place(self, #tag), buf)
            }

            /// As [`tracer_shim::Message::encode_to_vec`].
            #[inline]
            pub fn encode_to_vec(&self) -> ::std::vec::Vec<u8> {
                ::tracer_shim::__private::encode_to_vec(self, ::tracer_shim::__private::place(self, #tag))
            }

            /// As [`tracer_shim::Message::encode_length_delimited`].
            ///
            /// # Errors
            /// The buffer has too little room for the message and its length.
            #[inline]
            pub fn encode_length_delimited(
                &self,
                buf: &mut impl ::tracer_shim::__private::BufMut,
            ) -> ::core::result::Result<(), ::tracer_shim::__private::EncodeError> {
                let place = ::tracer_shim::__private::place(self, #tag);
                ::tracer_shim::__private::encode_length_delimited(self, place, buf)
            }

            /// As [`tracer_shim::Message::encode_length_delimited_to_vec`].
            #[inline]
            pub fn encode_length_delimited_to_vec(&self) -> ::std::vec::Vec<u8> {
                let place = ::tracer_shim::__private::place(self, #tag);
                ::tracer_shim::__private::encode_length_delimited_to_vec(self, place)
            }

            /// As [`tracer_shim::Message::decode`].
            ///
            /// # Errors
            /// The bytes are not this message.
            #[inline]
            pub fn decode(
                buf: impl ::tracer_shim::__private::Buf,
            ) -> ::core::result::Result<Self, ::tracer_shim::__private::DecodeError> {
                let mut message = <Self as ::core::default::Default>::default();
                message.merge(buf)?;
                ::core::result::Result::Ok(message)
            }

            /// As [`tracer_shim::Message::decode_length_delimited`].
            ///
            /// # Errors
            /// The bytes are not this message with its length.
            #[inline]
            pub fn decode_length_delimited(
                buf: impl ::tracer_shim::__private::Buf,
            ) -> ::core::result::Result<Self, ::tracer_shim::__private::DecodeError> {
                let mut message = <Self as ::core::default::Default>::default();
                message.merge_length_delimited(buf)?;
                ::core::result::Result::Ok(message)
            }

            /// As [`tracer_shim::Message::merge`].
            ///
            /// # Errors
            /// The bytes are not this message.
            #[inline]
            pub fn merge(
                &mut self,
                buf: impl ::tracer_shim::__private::Buf,
            ) -> ::core::result::Result<(), ::tracer_shim::__private::DecodeError> {
                ::tracer_shim::__private::merge(self, buf, ::tracer_shim::Carrier::trace_context)
            }

            /// As [`tracer_shim::Message::merge_length_delimited`].
            ///
            /// # Errors
            /// The bytes are not this message with its length.
            #[inline]
            pub fn merge_length_delimited(
                &mut self,
                buf: impl ::tracer_shim::__private::Buf,
            ) -> ::core::result::Result<(), ::tracer_shim::__private::DecodeError> {
                ::tracer_shim::__private::merge_length_delimited(self, buf, ::tracer_shim::Carrier::trace_context)
            }

            /// As [`tracer_shim::Message::encoded_len`].
            #[inline]
            pub fn encoded_len(&self) -> usize {
                ::tracer_shim::__private::encoded_len(self, #tag)
            }
        }
    }
}
