package decode

import "go.yaml.in/yaml/v4"

// Value decodes node strictly into the struct that into points to.
func Value(node *yaml.Node, into any) Problems {
	if err := node.Decode(into); err != nil {
		return Problems{{Line: node.Line, Col: node.Column, Code: "invalid", Message: err.Error()}}
	}
	return nil
}

// Locate turns an error that may point below node (see At), or several joined ones, into problems at their places.
func Locate(node *yaml.Node, err error) Problems {
	var ps Problems
	for _, e := range Flatten(err) {
		p := Problem{Code: "invalid_value", Message: e.Error()}
		if node != nil {
			p.Line, p.Col = node.Line, node.Column
		}
		ps = append(ps, p)
	}
	return ps
}
