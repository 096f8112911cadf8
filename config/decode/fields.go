package decode

import "reflect"

// Field is one key of a struct, as Value sees it: its name in the document, and where the value goes.
type Field struct {
	Name  string
	Index []int // for reflect.Value.FieldByIndex
	Type  reflect.Type
	Tag   reflect.StructTag
}

// Fields returns the keys of a struct in the order they are declared, those of embedded structs among them. Whatever
// describes a document (schemas, tables, forms) asks here, so that it cannot differ from what is decoded.
func Fields(t reflect.Type) []Field {
	info := newDecoder(newReferences("")).info(t)
	list := make([]Field, len(info.fields))
	for i, f := range info.fields {
		list[i] = Field{f.name, f.index, t.FieldByIndex(f.index).Type, f.tag}
	}
	return list
}

// Default returns a value of the type as it is when nothing is written: see SetDefaults at Value.
func Default(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	newDecoder(newReferences("")).defaults(v.Elem())
	return v.Elem()
}

// HasShortForm reports whether a struct of the type may be written as a scalar.
func HasShortForm(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[scalarer]())
}
