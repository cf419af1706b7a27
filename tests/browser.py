"""Pages in Debian's chromium."""

from typing import Any


def visit(browser: Any, address: str, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page, and what it complained about or tried to load from elsewhere."""
    page = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme).new_page()
    trouble: list[str] = []
    own = ("file:", "blob:", address.split("?")[0])
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.extend([] if request.url.startswith(own) else [request.url]))
    page.on("dialog", lambda dialog: trouble.append(dialog.message))
    page.goto(address)
    for plot in page.locator(".plot").all():
        plot.locator(".main-svg").first.wait_for(state="attached")
    return page, trouble
