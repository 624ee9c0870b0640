"""XMP packets as editors write them into sidecars."""

from __future__ import annotations


def packet(*, rating: int | None = None, caption: str | None = None, keywords: tuple[str, ...] = ()) -> bytes:
    """A whole sidecar."""
    parts = []
    if rating is not None:
        parts.append(f"<xmp:Rating>{rating}</xmp:Rating>")
    if caption is not None:
        item = f'<rdf:li xml:lang="x-default">{caption}</rdf:li>'
        parts.append(f"<dc:description><rdf:Alt>{item}</rdf:Alt></dc:description>")
    if keywords:
        items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
        parts.append(f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>")
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' xmlns:dc="http://purl.org/dc/elements/1.1/">{"".join(parts)}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()
