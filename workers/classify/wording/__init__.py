"""The words by which `cacheable` knows a question that depends on the moment, on the asker, or on something outside its text.

Patterns alone, for text that `cacheable.plain` has folded: lower case, straight apostrophes, English contractions spelt out.
"""
