"""The page for everyone: by keyboard only, with a screen reader, on a narrow screen, dark and light, without motion."""

from typing import Any

import pytest

CONTRAST = """
() => {
  const parsed = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (level) => (level / 255 <= 0.04045 ? level / 255 / 12.92 : ((level / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, under) => under.map((level, i) => level + (top[i] - level) * (top[3] ?? 1));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parsed(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const text = own || element.matches("input, textarea, select");
    if (!text || !element.checkVisibility({ opacityProperty: true }) || element.closest(".unseen, .skip")) continue;
    if (element.matches(":disabled, [type=range], [type=radio], [type=file]")) continue;
    const [behind, front] = [ground(element), parsed(getComputedStyle(element).color)];
    const [one, other] = [light(over(front, behind)), light(behind)];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${element.outerHTML.slice(0, 80)}`);
  }
  return faint;
}
"""
"""Texts of less contrast than 4.5 with what is behind them (WCAG 2.2, success criterion 1.4.3)."""

WIDE = """
() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 80))
"""
"""What reaches beyond the right edge, if that makes the page scroll sideways."""

TARGETS = """
() => [...document.querySelectorAll("button, a:not(.skip), select, summary, .tile, textarea, input:not([type=radio])")]
  .filter((element) => element.checkVisibility())
  .map((element) => [element.outerHTML.slice(0, 60), element.getBoundingClientRect()])
  .map(([html, box]) => [html, Math.min(box.width, box.height)])
"""
"""What can be pressed, each with the lesser of its width and height."""

ROLES = ("button", "link", "textbox", "searchbox", "combobox", "slider", "spinbutton", "radio", "option", "checkbox")


def nameless(page: Any) -> list[str]:
    """Return the controls of the browser's own accessibility tree that have no name."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in ROLES]
    assert len(controls) > 20, "the tree was not read"
    return [str(node) for node in controls if not node.get("name", {}).get("value", "").strip()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names_everywhere(studio: Any, scheme: str) -> None:
    page = studio.page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 120) == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []
    assert nameless(page) == []
    for number in range(2):
        studio.draw(seed=number)
        studio.drawn()
    studio.setting("Adapters").fill("ink")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="1 replica").click()
    page.locator("#board article").wait_for()
    assert page.evaluate(CONTRAST) == []
    assert nameless(page) == []
    page.keyboard.press("Escape")
    page.locator("#stage button.frame").click()
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("Escape")
    page.locator("#stage").get_by_role("button", name="Delete").click()
    page.get_by_label("Prompt", exact=True).fill("")
    page.keyboard.press("Control+Enter")
    page.locator("#prompt-error:not(:empty)").wait_for()
    assert page.evaluate(CONTRAST) == []


def test_the_toggle_goes_round_and_is_kept(studio: Any) -> None:
    page = studio.page
    toggle = page.locator("#theme-button")
    grounds = []
    for theme in ("light", "dark", "auto"):
        toggle.click()
        assert page.locator("html").get_attribute("data-theme") == theme
        grounds.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert grounds[0] != grounds[1]
    toggle.click()
    toggle.click()
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert toggle.get_attribute("aria-label") == "Colours: dark. Change to as the system"


@pytest.mark.parametrize("width", [320, 360, 390, 768])
def test_nothing_is_wider_than_the_screen(studio: Any, width: int) -> None:
    page = studio.page
    page.set_viewport_size({"width": width, "height": 740})

    def wide() -> list[str]:
        return list(page.evaluate(WIDE))

    assert wide() == []
    studio.setting("Adapters").fill("portrait-001")
    page.keyboard.press("Enter")
    page.locator("#counts label", has_text="2").click()
    studio.draw("anunbreakablywordwithoutanendthatgoesonandonandonandonandonandon")
    studio.drawn(2)
    assert wide() == []
    page.locator("#stage details summary").click()
    page.locator("#stage button.frame").first.click()
    assert wide() == []
    page.keyboard.press("Escape")
    page.locator("#board-button").click()
    assert wide() == []


def test_a_phone_can_touch_every_control(studio: Any) -> None:
    """Targets are 24 px or more each way (WCAG 2.2, success criterion 2.5.8), most of them 36."""
    page = studio.page
    page.set_viewport_size({"width": 360, "height": 740})
    studio.draw()
    studio.drawn()
    page.locator("#settings").evaluate("details => { details.open = true }")
    sizes = page.evaluate(TARGETS)
    assert len(sizes) > 30
    assert [one for one in sizes if one[1] < 24] == []
    assert sum(size >= 36 for _, size in sizes) > 0.9 * len(sizes)


def focused(page: Any) -> str:
    """Return what has the focus, after checking that it shows."""
    told = page.evaluate(
        """() => {
          const at = document.activeElement;
          const shown = at.closest(".tile") ?? at.closest(".drop") ?? at;
          const name = at.id || at.getAttribute("aria-label") || at.textContent.trim();
          return [name, getComputedStyle(shown).outlineStyle];
        }"""
    )
    assert told[1] != "none", f"the focus on {told[0]} does not show"
    return str(told[0])


def test_by_keyboard_only(studio: Any) -> None:
    page = studio.page
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the prompt"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    while focused(page) != "prompt":
        page.keyboard.press("Shift+Tab")
    page.keyboard.type("a red apple")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#styles :checked").input_value() == "photorealist"
    page.keyboard.press("ArrowLeft")
    order = []
    for _ in range(20):
        page.keyboard.press("Tab")
        order.append(focused(page))
        if order[-1] == "generate":
            break
    settings = [
        "steps",
        "steps-exact",
        "guidance",
        "guidance-exact",
        "sampler",
        "seed",
        "dice",
        "lora",
        "start",
        "generate",
    ]
    assert [one for one in order if one in settings] == settings
    page.keyboard.press("Enter")
    studio.drawn()
    assert focused(page) == "generate"
    page.keyboard.press("Tab")
    assert focused(page) == "Enlarge: a red apple"
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog", name="Picture").is_visible()
    assert focused(page) == "Close"
    page.keyboard.press("Escape")
    assert focused(page) == "Enlarge: a red apple"
    studio.engine.painter.step_s = 0.05
    page.keyboard.press("Control+Enter")
    page.locator("#stage[aria-busy=true]").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Cancelled").wait_for()


def test_adapters_by_keyboard(studio: Any) -> None:
    page = studio.page
    field = studio.setting("Adapters")
    field.focus()
    page.keyboard.press("ArrowDown")
    assert field.get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    active = field.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    name = page.locator(f"#{active}").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("#loras .name").all_inner_texts() == [name]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert field.get_attribute("aria-expanded") == "false"
    page.keyboard.press("Backspace")
    assert page.locator("#loras li").count() == 0


def test_motion_is_kept_from_those_who_do_not_want_it(studio: Any) -> None:
    studio.page.emulate_media(reduced_motion="reduce")
    studio.engine.painter.step_s = 0.05
    studio.draw()
    noise = studio.page.locator("#stage .making .noise")
    noise.wait_for()
    assert noise.evaluate("noise => parseFloat(getComputedStyle(noise).animationDuration)") <= 0.001


def test_the_page_asks_no_other_host_and_needs_no_inline_code(studio: Any) -> None:
    asked: list[str] = []
    studio.page.on("request", lambda request: asked.append(request.url))
    studio.page.reload()
    studio.page.locator("#styles label").first.wait_for()
    assert len(asked) > 20
    assert [url for url in asked if not url.startswith((studio.url, "blob:"))] == []
    policy = studio.page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
