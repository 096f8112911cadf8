// Package text finds the word that was meant.
package text

import "strings"

// maxWord is the longest word that is compared; a longer one is nobody's slip, and comparing costs the product of both
// lengths.
const maxWord = 64

// Nearest returns the candidate that word was probably meant to be. Case, and the difference between "-", "_", " " and
// "." count for nothing; otherwise a third of the word's letters may differ, counted in insertions, deletions, changes
// and swaps of neighbours (the optimal string alignment distance). Of equally near ones the first wins. Words of one or
// two letters have no neighbours but by case.
func Nearest(word string, candidates []string) (string, bool) {
	if len(word) == 0 || len(word) > maxWord {
		return "", false
	}
	folded := fold(word)
	best, found := "", len(word)/3+1
	for _, c := range candidates {
		if len(c) > maxWord || c == word {
			continue
		}
		d := distance(folded, fold(c))
		if d < found && d <= max(len(word), len(c))/3 {
			best, found = c, d
		}
	}
	return best, best != ""
}

// DidYouMean returns `; did you mean "X"?` for the nearest candidate, or nothing.
func DidYouMean(word string, candidates []string) string {
	if c, ok := Nearest(word, candidates); ok {
		return `; did you mean "` + c + `"?`
	}
	return ""
}

// List writes words as prose: "a", "a or b", "a, b or c".
func List(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func fold(s string) []rune {
	return []rune(strings.Map(func(r rune) rune {
		switch r {
		case '_', ' ', '.':
			return '-'
		}
		return r
	}, strings.ToLower(s)))
}

// distance counts insertions, deletions, substitutions and transpositions of neighbours.
func distance(a, b []rune) int {
	two, one, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(b)]
}
