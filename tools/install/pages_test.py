"""Tests of pages.py."""

import unittest

import pages

SHIPPED = {
    "docs/a.md": "share/doc/grapnel/a.md",
    "docs/b.md": "share/doc/grapnel/b.md",
    "io/x.h": "include/x.h",
    "bindings/go/README.md": "share/grapnel/go/README.md",
}


class RelinkedTest(unittest.TestCase):
    def test_each_link_is_alive_or_text(self):
        for link, expected in (
                ("[b](b.md)", "[b](b.md)"),
                ("[b](./b.md#part)", "[b](b.md#part)"),
                ("[`x`](../io/x.h)", "[`x`](../../../include/x.h)"),
                ("[go](../bindings/go/README.md)", "[go](../../grapnel/go/README.md)"),
                ("[c](c.md)", "c"),
                ("[c](c.md#part)", "c"),
                ("[examples](../examples/c_train)", "examples"),
                ("[here](#part)", "[here](#part)"),
                ("[site](https://x.example/b.md)", "[site](https://x.example/b.md)"),
                ("`f[T](x)`", "`f[T](x)`"),
                ("    f[T](x)", "    f[T](x)"),
                ("[c](c.md), [d](d.md), [b](b.md)", "c, d, [b](b.md)")):
            with self.subTest(link):
                text = f"# A\n\n{link}\n"
                self.assertEqual(pages.relinked(text, "docs/a.md", SHIPPED),
                                 f"# A\n\n{expected}\n")

    def test_starts_at_the_page(self):
        self.assertEqual(
            pages.relinked("[a](../../docs/a.md)", "bindings/go/README.md", SHIPPED),
            "[a](../../doc/grapnel/a.md)")


if __name__ == "__main__":
    unittest.main()
