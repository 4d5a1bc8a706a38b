// Lets the terminal and the player style themselves under a policy that allows no styles in the page's text. A sheet that
// they add gets the page's nonce, and a `style` attribute is set by way of the object model, which the policy permits.

const nonce = document.querySelector("meta[name=nonce]").content;
const createElement = document.createElement.bind(document);
const setAttribute = Element.prototype.setAttribute;

document.createElement = (name, ...rest) => {
  const element = createElement(name, ...rest);
  if (element instanceof HTMLStyleElement) {
    element.nonce = nonce;
  }
  return element;
};

Element.prototype.setAttribute = function (name, value) {
  if (name === "style" && this.style) {
    this.style.cssText = value;
  } else {
    setAttribute.call(this, name, value);
  }
};
